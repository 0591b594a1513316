"""The scripted chat model: it takes the place of a real one, and answers from what the prompt contains.

Guarantees: the same prompt gives the same answer; the model knows nothing that is not in the prompt, so that any chat
model can take its place. Does not: think; it fills sentences with the facts that it is given.
"""

import json
import re
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult


class ScriptedModel(BaseChatModel):
    """Answers the three questions of `graph`, each asked as a line of English followed by JSON."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002  # the base class's signature
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  # likewise
        **kwargs: Any,  # noqa: ARG002  # likewise
    ) -> ChatResult:
        facts = json.loads(str(messages[-1].text).partition("\n")[2])
        if "undocumented" in facts:
            answer = _docstring(facts["undocumented"])
        elif "reviewers" in facts:
            answer = _report(facts)
        else:
            answer = _summary(facts["findings"])
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer))])


def _docstring(name: str) -> str:
    """One sentence made of a name: `LazyGroup.list_commands` is "List commands."."""
    if name.endswith(".py"):
        parts = [each for each in name.removesuffix(".py").split("/") if each != "__init__"]
        return f"The module {parts[-1]}."
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.rpartition(".")[2]).replace("_", " ").split()
    return " ".join(words).capitalize() + "."


def _summary(findings: list[dict[str, Any]]) -> str:
    if not findings:
        return "Nothing to report."
    files = len({each["path"] for each in findings})
    worst = findings[0]
    where = f"{files} files" if files > 1 else "one file"
    return f"{len(findings)} in {where}, first of all {worst['path']}:{worst['line']}: {worst['message']}."


def _report(facts: dict[str, Any]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in sorted(facts["reviewers"].items()))
    lines = [f"{sum(facts['reviewers'].values())} findings stand ({counts})."]
    if facts["fixed"]:
        lines.append(f"Documented meanwhile: {', '.join(facts['fixed'])}.")
    lines += [f"{each['path']}:{each['line']}: {each['message']} [{each['code']}]" for each in facts["worst"]]
    return "\n".join(lines)

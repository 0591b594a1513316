"""Makes `docs/limits.md` from the constants: `python -m tests.protocol.limits_page`."""

from pathlib import Path
from typing import Final

from ccs_stream.protocol import limits
from ccs_stream.protocol.limits import LIMITS, Limit

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "limits.md"
_HEAD: Final = """\
# Limits

What a value may be. Each is checked when a method is called: what breaks a limit raises `UsageError`, which is a
`ValueError`, too, names the argument and the limit, and appends nothing. The same table is applied again where commands
are decided, so that no client, of any release, can write what readers cannot read.

Text is Unicode that UTF-8 can hold: half of a surrogate pair, as text that was cut inside an emoji has, is refused.
Limits that a workspace chooses for itself (the size of a body, the number of changes of one commit, the length of a
reservation) are its `WorkspaceSettings`; see [workspace.md](workspace.md).

This page is made from the constants of `ccs_stream.protocol.limits` with `python -m tests.protocol.limits_page`.

| value | least | most | unit | constant | |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The page, as it should be."""
    return _HEAD + "".join(map(_row, LIMITS))


def _row(limit: Limit) -> str:
    least = "" if limit.least is None else f"{limit.least:,}"
    return f"| {limit.what} | {least} | {limit.most:,} | {limit.unit} | `{limit.constant}` | {limit.note} |\n"


def constants() -> dict[str, int]:
    """The constants of the module that are limits."""
    return {name: value for name, value in vars(limits).items() if name.endswith("_MAX") and not name.startswith("_")}


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

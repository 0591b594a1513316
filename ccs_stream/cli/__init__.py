"""The `ccs-stream` command: coordinator, demo, doctor, topics, validate, workloads.

Guarantees: a command that needs an extra which is not installed names it; exit codes tell outcomes apart.
Does not: hold logic that another program would want; such logic lives in the room it belongs to.
May import: everything; an agent framework only in `cli.demo` and `cli.workloads`.
"""

import importlib
from typing import Final

import click

import ccs_stream

COMMANDS: Final = {
    "coordinator": "ccs_stream.cli.kafka.coordinator:coordinator",
    "demo": "ccs_stream.cli.demo.command:demo",
    "doctor": "ccs_stream.cli.kafka.doctor:doctor",
    "topics": "ccs_stream.cli.kafka.topics:topics",
    "validate": "ccs_stream.cli.validate:validate",
    "workloads": "ccs_stream.cli.workloads.command:workloads",
}
"""Module and function of each command, imported when the command is called. None imports a framework at its top."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(ccs_stream.__version__, prog_name="ccs-stream")
def main() -> None:
    """Keep LLM agents that share documents from working on stale copies or losing each other's updates.

    Begin with `ccs-stream demo`: it needs no API key, no broker and no network. To look into a log, use `ccs-replay`.
    """

"""The help of every command, as a stranger reads it in a terminal of 80 columns."""

import importlib
from collections.abc import Iterator

import click
import pytest

from ccs_stream import cli
from ccs_stream.replay import app

BENCHMARK = importlib.import_module("ccs_stream.cli.workloads.measure").main


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from commands(found, f"{name} {inner}")


COMMANDS = dict(
    [*commands(cli.main, "ccs-stream"), *commands(app.cli, "ccs-replay"), *commands(BENCHMARK, "ccs-benchmark")]
)


def help_of(name: str) -> str:
    command = COMMANDS[name]
    return command.get_help(click.Context(command, info_name=name, terminal_width=80))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_eighty_columns_and_shows_no_marks_of_its_source(name: str) -> None:
    shown = help_of(name)
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert "\b" not in shown
    assert "\\b" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_option_says_what_it_does_in_whole_words(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == []
    if isinstance(command, click.Group):
        assert [line for line in help_of(name).splitlines() if line.endswith("...") and "Usage" not in line] == []

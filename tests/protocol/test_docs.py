"""The tables of the documentation are those of the code."""

from pathlib import Path

from ccs_stream.protocol.command_table import ANY_COMMAND, COMMAND_TABLE
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.events import EVENT_TYPES, CommandAnswered
from ccs_stream.protocol.states import TRANSITIONS, GrantAct, GrantState
from ccs_stream.testing.given_when_then import Story
from tests.log.scenario import commands

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text("utf-8")


def test_the_command_table_of_the_docs_is_that_of_the_code() -> None:
    for row in COMMAND_TABLE:
        events = ", ".join(f"`{event.__name__}`" for event in row.events)
        assert f"| {row.kind.value} | {events} | {row.effect} |" in DOCS


def test_every_command_and_every_event_is_in_the_table() -> None:
    assert [row.kind for row in COMMAND_TABLE] == list(CommandKind)
    named = {event for row in COMMAND_TABLE for event in row.events} | set(ANY_COMMAND)
    assert set(EVENT_TYPES) - named == {CommandAnswered}


def test_the_mesi_table_of_the_docs_is_that_of_the_code() -> None:
    assert list(TRANSITIONS) == list(GrantAct)
    for act, row in TRANSITIONS.items():
        cells = " | ".join(" or ".join(row[state]) for state in GrantState)
        assert f"| {act.value} | {cells} |" in DOCS


def test_commands_are_decided_as_their_row_says() -> None:
    rows = {row.kind: row.events for row in COMMAND_TABLE}
    story = Story()
    story.state = type(story.state)()
    for _, command in commands():
        story.when(command)
        assert {type(event) for event in story.events} <= {*rows[command.KIND], *ANY_COMMAND}

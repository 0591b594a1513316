"""The chain of a value: whatever `decide` accepts is encoded, decoded, folded, snapshotted, hashed and shown.

Commands hold values over the full ranges of their types and beyond, as a client of another release might send them.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_stream.coordinator.batch import plan
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.commands import decode_command, encode_command
from ccs_stream.log.fold import fold_log
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.snapshot import read_snapshot, take_snapshot
from ccs_stream.protocol.commands import Acquire, Command, Commit, Content, Erase, Open, Release, Write, WriteMode
from ccs_stream.protocol.decide import INVALID, decide
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import CommandRefused, RefusalReason
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber, Hash, Micros
from ccs_stream.protocol.limits import (
    DURATION_US_MAX,
    INT64_MAX,
    NAME_BYTES_MAX,
    REASON_BYTES_MAX,
    SCOPE_PARTS_MAX,
    TIME_US_MAX,
)
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.replay import artifact as artifact_command
from ccs_stream.replay import info as info_command
from ccs_stream.replay import state as state_command
from ccs_stream.replay import timeline as timeline_command
from ccs_stream.replay import transitions as transitions_command
from ccs_stream.replay import verify as verify_command
from ccs_stream.replay.source import Source
from ccs_stream.testing.given_when_then import WORKSPACE, Story

EDGES = (0, 1, 8_191, 8_192, 2**31, DURATION_US_MAX, TIME_US_MAX, INT64_MAX, 2**64, 2**70, 10**400)
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(EDGES).flatmap(lambda edge: st.integers(-2, 2).map(lambda near: edge + near)),
    st.sampled_from(EDGES).map(lambda edge: -edge),
)
odd = st.sampled_from([True, 1.0, 2.5, "1", b"1", float("nan"), float("inf"), None, (), object()])
any_number: st.SearchStrategy[Any] = st.one_of(numbers, numbers, odd)
texts = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "L"]), max_size=8),
    st.sampled_from(
        ["", "x" * NAME_BYTES_MAX, "x" * (NAME_BYTES_MAX + 1), "é" * NAME_BYTES_MAX, "[/b]", "\ud83d", "\x1b[2J"]
    ),
    st.just("r" * (REASON_BYTES_MAX + 1)),
)
any_text: st.SearchStrategy[Any] = st.one_of(texts, texts, odd)
scopes = st.one_of(
    st.lists(texts, max_size=3).map(tuple),
    st.just(("a",) * (SCOPE_PARTS_MAX + 1)),
    texts,
    st.lists(texts, max_size=2),
    odd,
)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """A content whose body is what its size says, unless the size is odd."""
    body = draw(st.binary(max_size=20))
    return Content(
        content_type=draw(st.just("application/json") | any_text),
        content_encoding=draw(st.just("") | any_text),
        content_hash=Hash(hashlib.sha256(body).digest()),
        size=draw(st.just(len(body)) | any_number),
        body=draw(st.just(body) | st.none()),
        locator=draw(st.none() | st.binary(max_size=9)),
        uploaded_at=draw(st.none() | any_number),
    )


def odd_commands(story: Story) -> st.SearchStrategy[Command]:
    """Commands of the agent `a`, who has joined and has written `k`."""
    known, session = story.id("k"), story.write("a", "k")
    assert isinstance(session, Commit)
    ids = st.sampled_from([known, story.id("new")])
    modes = st.sampled_from(WriteMode)
    common: dict[str, Any] = {"session_id": st.just(session.session_id), "number": st.integers(100, INT64_MAX)}
    writes = st.builds(
        Write,
        artifact=ids,
        scope=scopes,
        key=any_text,
        content=contents(),
        mode=modes,
        base_version=st.none() | any_number,
        fence=st.none() | any_number,
        ttl_us=st.none() | any_number,
        index_fields=st.none() | st.lists(texts, max_size=3).map(tuple) | odd,
        reason=st.none() | any_text,
        trace_parent=st.none() | any_text,
    )
    erases = st.builds(
        Erase,
        artifact=ids,
        mode=modes,
        base_version=st.none() | any_number,
        fence=st.none() | any_number,
        reason=st.none() | any_text,
    )
    agents = st.just("a") | any_text
    return st.one_of(
        st.builds(Commit, agent=agents, changes=st.lists(writes | erases, max_size=3).map(tuple), **common),
        st.builds(Commit, agent=st.just("a"), changes=st.tuples(writes), **common),
        st.builds(Acquire, agent=agents, artifact=ids, scope=scopes, key=any_text, duration_us=any_number, **common),
        st.builds(Release, agent=agents, artifact=ids, fence=any_number, **common),
        st.builds(
            lambda agent, **members: dataclasses.replace(story.join("b"), agent=agent, **members),
            any_text,
            host=st.none() | any_text,
            pid=st.none() | any_number,
            labels=st.none() | st.dictionaries(texts, any_text, max_size=2) | odd,
        ),
    )


class Chain:
    """A workspace on a log in memory, which the code of readers reads."""

    def __init__(self) -> None:
        self.story = Story()
        self.state = Directory()
        self.log = MemoryLog()
        self.reader = ShardReader(self.log, WORKSPACE)
        with self.log.turn(WORKSPACE):
            pass
        list(self.reader.read())
        self.now = self.story.now
        opening = Open(session_id=NO_SESSION, number=CommandNumber(0), settings=WorkspaceSettings())
        for command in (opening, self.story.join("a"), self.story.write("a", "k")):
            assert self.decide(command) is None

    def decide(self, command: Command) -> CommandRefused | None:
        """Decide, encode, append and fold a command; returns its refusal."""
        (planned,) = plan(self.state, self.reader.cursor, WORKSPACE, [command], self.now)
        if planned.draft is None or planned.record is None or planned.digest is None:
            return None
        with self.log.turn(WORKSPACE):
            self.log.append(WORKSPACE, [planned.draft], self.reader.offset)
        fold_decision(self.state, planned.decision.events, planned.record)
        self.reader.advance_past(planned.record, planned.digest, self.reader.offset + 1)
        return planned.decision.refusal

    def check(self) -> None:
        """The log says the same to every reader, and every tool shows it."""
        state, reader = Directory(), ShardReader(self.log, WORKSPACE)
        for _ in fold_log(reader, state):
            pass
        assert state_hash(state) == state_hash(self.state)
        restored = read_snapshot(take_snapshot(state, reader.position(WORKSPACE)))
        assert state_hash(restored.state) == state_hash(state)
        source = Source(self.log, WORKSPACE)
        for as_json in (False, True):
            with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "ascii")):
                info_command.run(source, as_json=as_json)
                state_command.run(source, None, as_json=as_json)
                timeline_command.run(source, timeline_command.TimelineOptions(), as_json=as_json)
                transitions_command.run(source, transitions_command.TransitionsOptions(), as_json=as_json)
                for artifact in state.artifacts.values():
                    name = json.dumps([*artifact.scope, artifact.key])
                    artifact_command.run(source, name, None, as_json=as_json)
                assert not verify_command.check(source, verify_command.VerifyOptions(bodies=False)).found.violations


CHAIN = Chain()
"""Makes commands for any chain: equal names have equal ids and sessions."""


@settings(max_examples=100, deadline=None)
@given(st.lists(odd_commands(CHAIN.story), min_size=1, max_size=4), st.sampled_from([0, TIME_US_MAX // 2, TIME_US_MAX]))
def test_what_is_accepted_can_be_encoded_decoded_folded_snapshotted_hashed_and_shown(
    commands: list[Command], now: int
) -> None:
    chain = Chain()
    for number, command in enumerate(commands):
        command.number = CommandNumber(200 + number)
        chain.now = Micros(max(now, chain.state.recorded_at))
        refusal = chain.decide(command)
        assert refusal is None or refusal.reason is not RefusalReason.INTERNAL_ERROR, (command, refusal)
    chain.check()


@given(odd_commands(CHAIN.story), st.sampled_from([1_750_000_000_000_000, TIME_US_MAX]))
def test_decide_raises_nothing_and_every_event_it_makes_survives_the_codec(command: Command, now: int) -> None:
    chain = Chain()
    for event in decide(chain.state, command, Micros(now)).events:
        assert DEFAULT_CODEC.decode_event(DEFAULT_CODEC.encode_event(event)) == event


@given(odd_commands(CHAIN.story))
def test_a_command_that_passes_the_table_arrives_as_it_was_sent(command: Command) -> None:
    if decide(CHAIN.state, command, CHAIN.now).refusal is None:
        assert decode_command(encode_command(WORKSPACE, command)) == (WORKSPACE, command)


@pytest.mark.parametrize(
    "changed",
    [
        {"ttl_us": 2**63},
        {"ttl_us": 2**64 + 1_000_000},
        {"ttl_us": 0},
        {"ttl_us": -1},
        {"ttl_us": 1.5},
        {"ttl_us": TIME_US_MAX},
        {"reason": "half \ud83d"},
        {"reason": "x" * (REASON_BYTES_MAX + 1)},
        {"trace_parent": "\udfff"},
        {"index_fields": ("a", "\ud800")},
        {"base_version": 2**63},
        {"base_version": -1},
        {"base_version": 1.0},
        {"base_version": "1"},
        {"fence": 2**70},
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["known", "new"])
def test_a_write_beyond_the_table_is_refused_and_nothing_else_happens(changed: dict[str, Any], key: str) -> None:
    story = Story()
    story.given(story.write("a", "known"))
    commit = story.write("a", key)
    assert isinstance(commit, Commit)
    commit.changes = (dataclasses.replace(commit.changes[0], **changed),)
    story.when(commit).refused(INVALID)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maximum_reservation_us", DURATION_US_MAX + 1),
        ("session_timeout_us", 2**63 - 1),
        ("dedupe_window", 2**62),
        ("maximum_content_bytes", 2**40),
    ],
)
def test_a_workspace_is_not_opened_with_settings_beyond_the_table(name: str, value: int) -> None:
    settings_given = WorkspaceSettings(**{name: value})  # type: ignore[arg-type]
    decision = decide(
        Directory(), Open(session_id=NO_SESSION, number=CommandNumber(0), settings=settings_given), Micros(1)
    )
    assert decision.refusal is not None
    assert decision.refusal.reason is INVALID
    assert name in decision.refusal.detail


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(WorkspaceSettings)])
@pytest.mark.parametrize("value", ["1", 2.5, None, -1, 2**63, 10**400])
def test_a_setting_of_a_wrong_kind_is_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(WorkspaceSettings(), **{name: value})


def test_a_life_and_a_reservation_do_not_leave_the_calendar() -> None:
    story = Story()
    story.given(story.write("a", "k", ttl_s=600))
    story.now = Micros(TIME_US_MAX - 300 * SECOND_US)
    story.when(story.write("a", "j", ttl_s=600)).refused(INVALID)
    story.when(story.acquire("a", "j", 600)).refused(INVALID)


def test_a_number_far_ahead_costs_its_session_no_more_than_its_window() -> None:
    story = Story(WorkspaceSettings(dedupe_window=1_000_000))
    story.given(story.write("a", "k"))
    far = story.write("a", "k")
    far.number = CommandNumber(999_999)
    began = time.perf_counter()
    story.given(far)
    assert time.perf_counter() - began < 0.1

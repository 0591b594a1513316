"""Any history of commands keeps the invariants: a state machine over the real decide, fold, codec and reader."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ccs_stream.coordinator.batch import plan
from ccs_stream.log.fold import fold_log
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.projections.invariants import FindingKind, Invariants
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import CommandRefused
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import NO_SESSION, NOBODY, CommandNumber, Micros, SessionId
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.testing.given_when_then import WORKSPACE, Story

SETTINGS = WorkspaceSettings(
    crash_recovery=True,
    dedupe_window=8,
    maximum_sessions=4,
    heartbeat_interval_us=Micros(2 * SECOND_US),
    session_timeout_us=Micros(6 * SECOND_US),
    maximum_hold_us=Micros(20 * SECOND_US),
)
who = st.sampled_from(["a", "b@1", "c@1", "b@2"])
keys = st.sampled_from(["k", "j"])
bases = st.none() | st.integers(0, 6)
fences = st.none() | st.integers(1, 6)


class Asker(Story):
    """Makes commands; its agents join by commands that wait like the others."""

    def __init__(self, state: Directory, waiting: list[Command]) -> None:
        super().__init__(SETTINGS)
        self.state = state
        self._waiting = waiting

    def _joined(self, who: str) -> tuple[str, SessionId]:
        agent, session = self._who(who)
        known = self.state.sessions.get(session)
        if known is None or agent not in known.participants:
            self._waiting.append(self.join(who))
        return agent, session


class Workspace(RuleBasedStateMachine):
    """A workspace on a log in memory, its commands decided in batches."""

    @initialize()
    def open(self) -> None:
        """An empty, opened workspace."""
        self.waiting: list[Command] = []
        self.done: list[Command] = []
        self.live = Directory()
        self.story = Asker(self.live, self.waiting)
        self.log = MemoryLog()
        self.reader = ShardReader(self.log, WORKSPACE)
        self.found = Invariants()
        with self.log.turn(WORKSPACE):
            pass
        list(self.reader.read())
        self.waiting.append(Open(session_id=NO_SESSION, number=CommandNumber(0), settings=SETTINGS))
        self.commit(fails=False)

    def ask(self, command: Command) -> None:
        """Queue a command."""
        self.waiting.append(command)

    @rule(who=who, key=keys, base=bases, cas=st.booleans(), fence=fences, ttl=st.none() | st.integers(1, 9))
    def write(self, who: str, key: str, base: int | None, cas: bool, fence: int | None, ttl: int | None) -> None:
        """A write of any mode."""
        self.ask(self.story.write(who, key, f"{len(self.done)}", base=base, cas=cas, fence=fence, ttl_s=ttl))

    @rule(who=who, key=keys)
    def read(self, who: str, key: str) -> None:
        """A read."""
        self.ask(self.story.read(who, key))

    @rule(who=who, key=keys, base=bases, cas=st.booleans())
    def delete(self, who: str, key: str, base: int | None, cas: bool) -> None:
        """A delete."""
        self.ask(self.story.delete(who, key, base=base, cas=cas))

    @rule(who=who, base=bases)
    def commit_all(self, who: str, base: int | None) -> None:
        """Both artifacts at once, one of them guarded."""
        self.ask(self.story.commit(who, self.story.change("k"), self.story.change("j", base=base, cas=True)))

    @rule(who=who, key=keys, seconds=st.integers(1, 5))
    def acquire(self, who: str, key: str, seconds: int) -> None:
        """A reservation."""
        self.ask(self.story.acquire(who, key, seconds))

    @rule(who=who, key=keys, fence=st.integers(1, 6))
    def release(self, who: str, key: str, fence: int) -> None:
        """A release, of one's own reservation or not."""
        self.ask(self.story.release(who, key, fence))

    @rule(who=who, key=keys)
    def refresh(self, who: str, key: str) -> None:
        """A longer life."""
        self.ask(self.story.refresh(who, key))

    @rule(who=who)
    def heartbeat(self, who: str) -> None:
        """A sign of life."""
        self.ask(self.story.heartbeat(who))

    @rule(who=who)
    def leave(self, who: str) -> None:
        """The end of a session."""
        self.ask(self.story.leave(who))

    @rule(limit=st.integers(1, 3))
    def sweep(self, limit: int) -> None:
        """A sweep, alone in its batch as the coordinator's is."""
        self.commit(fails=False)
        self.ask(self.story.sweep(limit))
        self.commit(fails=False)

    @precondition(lambda self: bool(self.done))
    @rule(data=st.data())
    def repeat(self, data: Any) -> None:
        """A command that was asked for before."""
        self.ask(data.draw(st.sampled_from(self.done[-12:])))

    @rule(seconds=st.integers(-1, 4))
    def time_passes(self, seconds: int) -> None:
        """Forward, and sometimes a little back."""
        self.story.now = Micros(self.story.now + seconds * SECOND_US)

    @rule(fails=st.booleans())
    def commit(self, fails: bool) -> None:
        """Decide what waits in one batch, and append it, or fail to."""
        batch = list(self.waiting)
        self.waiting.clear()
        if not batch:
            return
        before = state_hash(self.live)
        now = max(self.story.now, self.live.recorded_at)
        planned = plan(self.live, self.reader.cursor, WORKSPACE, batch, now)
        assert state_hash(self.live) == before
        if fails:
            return
        drafts = [each.draft for each in planned if each.draft is not None]
        with self.log.turn(WORKSPACE):
            self.log.append(WORKSPACE, drafts, self.reader.offset)
        for each in planned:
            if each.record is None or each.digest is None:
                continue
            events = each.decision.events
            if any(isinstance(event, CommandRefused) for event in events):
                assert len(events) == 1
            reserved = {key: (a.reserved_by, a.reserved_until) for key, a in self.live.artifacts.items()}
            fold_decision(self.live, each.decision.events, each.record)
            if each.record.command_kind == "read":
                for key, (by, until) in reserved.items():
                    artifact = self.live.artifacts[key]
                    assert artifact.reserved_by == by or until <= now
            self.reader.advance_past(each.record, each.digest, self.reader.offset + 1)
            self.found.decision(each.record, events)
        self.done.extend(batch)

    @invariant()
    def holds(self) -> None:
        """Check what is true of every state."""
        if not hasattr(self, "live"):
            return
        for artifact in self.live.artifacts.values():
            if artifact.owner != NOBODY:
                assert not artifact.sharers
                assert artifact.owner_state in ("M", "E")
        for session in self.live.sessions.values():
            assert len(session.window) <= SETTINGS.dedupe_window
        assert self.live.session_count() <= 8
        assert set(self.found.counts) <= {FindingKind.LOST_UPDATE}, self.found.examples

    def teardown(self) -> None:
        """At the end, the log folds to the live state, and the indexes are what a scan says."""
        if not hasattr(self, "live"):
            return
        state = Directory()
        entries = list(fold_log(ShardReader(self.log, WORKSPACE), state))
        assert state_hash(state) == state_hash(self.live)
        sequences = [
            number
            for entry in entries
            if isinstance(entry.record, DecisionRecord)
            for number in range(entry.record.first_sequence, entry.record.first_sequence + len(entry.events))
        ]
        assert sequences == list(range(1, len(sequences) + 1))
        assert state.participants == self.live.participants
        held = {
            number: (set(p.held), set(p.reserved), dict(p.reclaimed), dict(p.owned))
            for number, p in self.live.participants.items()
        }
        for number, p in self.live.participants.items():
            assert set(p.owned) == {key for key, artifact in self.live.artifacts.items() if artifact.owner == number}
            assert list(p.owned.values()) == sorted(p.owned.values())
            assert set(p.reclaimed) == {
                key for key, artifact in self.live.artifacts.items() if number in artifact.reclaimed
            }
            assert None not in p.reclaimed.values()
        existing = {scope: dict(keys) for scope, keys in self.live.existing.items()}
        self.live.rebuild_indexes()
        rebuilt = self.live.participants
        assert {n: (p.held, p.reserved, p.reclaimed, p.owned) for n, p in rebuilt.items()} == held
        assert all(list(p.owned.values()) == sorted(p.owned.values()) for p in rebuilt.values())
        assert self.live.existing == existing


TestWorkspace = Workspace.TestCase
TestWorkspace.settings = settings(max_examples=500, stateful_step_count=50)

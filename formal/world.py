"""A small world: the real directory, and beside it the account of an onlooker.

Guarantees: the onlooker's account (which participant read which version, whose time ran out) is kept apart from
`decide` and `fold`, so that a rule weakened there shows here. Does not: look into bodies.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from ccs_stream.protocol.commands import (
    Acquire,
    Command,
    Commit,
    Content,
    Erase,
    Join,
    Open,
    Read,
    Release,
    Sweep,
    Write,
    WriteMode,
)
from ccs_stream.protocol.decide import Decision
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import (
    ArtifactDeleted,
    CommandRefused,
    Event,
    GrantIssued,
    ReservationAcquired,
    ReservationEnded,
    WriteCommitted,
)
from ccs_stream.protocol.ids import (
    NO_SESSION,
    ArtifactId,
    CommandNumber,
    Fence,
    Hash,
    Micros,
    ParticipantNumber,
    SessionId,
    Version,
    artifact_id,
)
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.states import GrantState

UNNUMBERED: Final = CommandNumber(0)
TICK: Final = Micros(SECOND_US)
RESERVED_TICKS: Final = 2
_START: Final = Micros(1_750_000_000 * SECOND_US)
_BODY: Final = Content(
    content_type="", content_encoding="", content_hash=Hash(hashlib.sha256(b"").digest()), size=0, body=b""
)

Decide = Callable[[Directory, Command, Micros], Decision]
Fold = Callable[[Directory, list[Event], Micros, Command], None]


class BrokenRule(Exception):  # what is looked for, not an error
    """A rule does not hold."""


@dataclasses.dataclass(slots=True)
class Agent:
    """The knowledge of one participant."""

    name: str
    session_id: SessionId
    number: ParticipantNumber
    seen: dict[ArtifactId, int] = dataclasses.field(default_factory=dict)
    """The version it last read or wrote, tombstones included."""
    fence: dict[ArtifactId, int] = dataclasses.field(default_factory=dict)
    """The fence it was last given, stale or not."""
    old_fence: dict[ArtifactId, int] = dataclasses.field(default_factory=dict)
    """The fence before that one."""
    until: dict[ArtifactId, int] = dataclasses.field(default_factory=dict)
    """When its reservation ends, unless it has released it."""
    lost: frozenset[ArtifactId] = frozenset()
    """Artifacts whose reservation it lost by time and that it has not read since."""

    def copy(self) -> "Agent":
        """An agent of its own."""
        return Agent(
            self.name,
            self.session_id,
            self.number,
            dict(self.seen),
            dict(self.fence),
            dict(self.old_fence),
            dict(self.until),
            self.lost,
        )


@dataclasses.dataclass(slots=True)
class World:
    """One state of everything."""

    state: Directory
    agents: list[Agent]
    artifacts: tuple[ArtifactId, ...]
    now: Micros = _START

    def copy(self) -> "World":
        """A world whose changes do not show here."""
        state = Directory()
        old = self.state
        state.sequence, state.recorded_at, state.opened = old.sequence, old.recorded_at, old.opened
        state.settings, state.participants_ever = old.settings, old.participants_ever
        state.artifacts = {key: each.fork() for key, each in old.artifacts.items()}
        state.sessions = old.sessions  # unnumbered commands leave sessions as they are
        state.participants = {key: each.fork() for key, each in old.participants.items()}
        state.agents = old.agents
        state.deadlines = list(old.deadlines)
        state.existing = {scope: dict(keys) for scope, keys in old.existing.items()}
        return World(state, [agent.copy() for agent in self.agents], self.artifacts, self.now)

    def key(self) -> Hashable:
        """The identity of a state as far as its future goes: without sequences, with times as time left."""
        rows: list[Hashable] = []
        for artifact_id_ in self.artifacts:
            each = self.state.artifacts.get(artifact_id_)
            if each is None:
                rows.append(None)
                continue
            left = max(each.reserved_until - self.now, 0) if each.reserved_by else -1
            rows.append(
                (
                    each.version,
                    each.deleted,
                    each.owner,
                    each.owner_state,
                    frozenset(each.sharers),
                    each.fence,
                    each.reserved_by,
                    left,
                    frozenset(each.reclaimed),
                )
            )
        known = tuple(
            (
                tuple(sorted(agent.seen.items())),
                tuple(sorted(agent.fence.items())),
                tuple(sorted(agent.old_fence.items())),
                tuple(sorted((key, max(until - self.now, 0)) for key, until in agent.until.items())),
                agent.lost,
            )
            for agent in self.agents
        )
        return tuple(rows), known


def begin(participants: int, artifacts: int, decide: Decide, fold: Fold) -> World:
    """A workspace in which all participants have joined and no artifact exists."""
    state = Directory()
    ids = tuple(artifact_id("w", (), f"k{number}") for number in range(artifacts))
    world = World(state, [], ids)
    opening = Open(session_id=NO_SESSION, number=UNNUMBERED, settings=WorkspaceSettings())
    commands: list[Command] = [opening]
    for number in range(participants):
        session = SessionId(bytes([number + 1]) * 16)
        commands.append(Join(session_id=session, number=UNNUMBERED, agent=f"p{number}"))
        world.agents.append(Agent(f"p{number}", session, ParticipantNumber(number + 1)))
    for command in commands:
        fold(state, decide(state, command, world.now).events, world.now, command)
    return world


def moves(world: World) -> Iterator[tuple[str, Agent | None, Command | None]]:
    """Every command that may come next; None is a tick of the clock."""
    yield "tick", None, None
    yield "sweep", None, Sweep(session_id=NO_SESSION, number=UNNUMBERED, limit=10)
    for agent in world.agents:
        for number, artifact in enumerate(world.artifacts):
            for name, command in _moves_of(agent, artifact, f"k{number}"):
                yield f"{agent.name} {name} k{number}", agent, command


def _moves_of(agent: Agent, artifact: ArtifactId, key: str) -> Iterator[tuple[str, Command]]:
    common = {"session_id": agent.session_id, "number": UNNUMBERED, "agent": agent.name}
    seen, fence = agent.seen.get(artifact), agent.fence.get(artifact)

    def commit(change: Write | Erase) -> Commit:
        return Commit(**common, changes=(change,))  # type: ignore[arg-type]

    def write(mode: WriteMode, held: int | None) -> Write:
        return Write(
            artifact=artifact,
            scope=(),
            key=key,
            content=_BODY,
            mode=mode,
            base_version=None if seen is None else Version(seen),
            fence=None if held is None else Fence(held),
        )

    yield "reads", Read(**common, artifact=artifact)  # type: ignore[arg-type]
    yield "writes", commit(write(WriteMode.LAST_WRITER_WINS, None))
    yield "compares and sets", commit(write(WriteMode.COMPARE_AND_SET, None))
    yield "deletes", commit(Erase(artifact=artifact))
    yield (
        "acquires",
        Acquire(**common, artifact=artifact, scope=(), key=key, duration_us=Micros(RESERVED_TICKS * TICK)),  # type: ignore[arg-type]
    )
    wrong = write(WriteMode.COMPARE_AND_SET, None)
    wrong.base_version = Version(99)
    yield "compares with a version that never was", commit(wrong)
    if artifact in agent.old_fence:
        yield "writes with an old fence", commit(write(WriteMode.LAST_WRITER_WINS, agent.old_fence[artifact]))
    if fence is not None:
        yield "writes with its fence", commit(write(WriteMode.LAST_WRITER_WINS, fence))
        yield "releases", Release(**common, artifact=artifact, fence=Fence(fence))  # type: ignore[arg-type]


def step(world: World, agent: Agent | None, command: Command | None, decide: Decide, fold: Fold) -> World:
    """The world after a move; raises `BrokenRule`."""
    after = world.copy()
    if command is None:
        after.now = Micros(after.now + TICK)
    else:
        decision = decide(after.state, command, after.now)
        actor = None if agent is None else next(each for each in after.agents if each.name == agent.name)
        _check_decision(world, actor, command, decision)
        fold(after.state, decision.events, after.now, command)
        if isinstance(command, Read):
            _check_read(world, after, command.artifact)
        _account(after, actor, command, decision)
    for each in after.agents:
        ran_out = {key for key, until in each.until.items() if until <= after.now}
        for key in ran_out:
            del each.until[key]
        each.lost |= ran_out
    _check_state(world, after)
    return after


def _require(holds: object, rule: str) -> None:
    if not holds:
        raise BrokenRule(rule)


def _standing(world: World, artifact: ArtifactId) -> Agent | None:
    """The holder of the reservation, by the onlooker's account."""
    return next((each for each in world.agents if each.until.get(artifact, 0) > world.now), None)


def _check_decision(world: World, actor: Agent | None, command: Command, decision: Decision) -> None:
    """Check that a decision is allowed, given the onlooker's knowledge."""
    events = decision.events
    if any(type(event) is CommandRefused for event in events):
        _require(len(events) == 1, "a refused command leaves only its refusal")
        return
    if isinstance(command, Sweep):
        due = any(each.reserved_by and each.reserved_until <= world.now for each in world.state.artifacts.values())
        _require(bool(events) == due, "a sweep ends what has run out, and finding nothing decides nothing")
    if isinstance(command, Read):
        ended = [event for event in events if type(event) is ReservationEnded]
        _require(not (ended and _standing(world, command.artifact)), "a reader never ends a standing reservation")
    if isinstance(command, Acquire):
        _require(_standing(world, command.artifact) is None, "a standing reservation excludes every other one")
    if not isinstance(command, Commit) or actor is None:
        return
    change = command.changes[0]
    if not any(type(event) in (WriteCommitted, ArtifactDeleted) for event in events):
        return
    artifact = change.artifact
    before = world.state.artifacts.get(artifact)
    _require(artifact not in actor.lost, "no zombie write: who lost a reservation writes only after reading again")
    holder = _standing(world, artifact)
    if holder is not None:
        own = holder.name == actor.name and change.fence == holder.fence.get(artifact)
        _require(own, "while a reservation stands only its fence passes")
    else:
        _require(change.fence is None, "a fence passes only while its reservation stands")
    if change.mode is WriteMode.COMPARE_AND_SET:
        current = 0 if before is None else before.version
        exists = before is not None and before.exists
        base = change.base_version
        _require(not exists if base is None else base == current, "compare_and_set compares for equality")


def _check_read(before: World, after: World, artifact: ArtifactId) -> None:
    """Check that every holder of a copy still holds one after another participant's read."""
    old, new = before.state.artifacts.get(artifact), after.state.artifacts.get(artifact)
    if old is not None and new is not None:
        kept = all(new.holds(agent.number) for agent in before.agents if old.holds(agent.number))
        _require(kept, "a read takes nobody's copy away")


def _account(after: World, actor: Agent | None, command: Command, decision: Decision) -> None:
    """Update the participants' knowledge after a decision."""
    for event in decision.events:
        match event:
            case GrantIssued() if actor is not None:
                actor.seen[event.artifact] = event.version
            case WriteCommitted() if actor is not None:
                actor.seen[event.artifact] = event.version
            case ArtifactDeleted() if actor is not None:
                actor.seen[event.artifact] = event.version
            case ReservationAcquired() if actor is not None:
                if event.artifact in actor.fence:
                    actor.old_fence[event.artifact] = actor.fence[event.artifact]
                actor.fence[event.artifact] = event.fence
                actor.until[event.artifact] = event.until
            case _:
                pass
    if actor is None or decision.refusal is not None:
        return
    if isinstance(command, Read):
        artifact = after.state.artifacts.get(command.artifact)
        actor.seen[command.artifact] = 0 if artifact is None else artifact.version
        actor.lost -= {command.artifact}
    if isinstance(command, Release):
        actor.until.pop(command.artifact, None)


def _check_state(before: World, after: World) -> None:
    """Check the rules of every state, and of every step from one state to the next."""
    for artifact, each in after.state.artifacts.items():
        old = before.state.artifacts.get(artifact)
        _require(not (each.owner and each.sharers), "an owner (M or E) holds the only copy")
        _require(bool(each.owner) == (each.owner_state is not GrantState.INVALID), "an owner is in M or E")
        _require(each.version - (0 if old is None else old.version) in (0, 1), "a version is one more, or the same")
        _require(old is None or each.fence >= old.fence, "a fence never falls")
        if old is not None and (old.reserved_by, old.reserved_until) != (each.reserved_by, each.reserved_until):
            _require(each.fence > old.fence, "a fence rises at every acquire, release and reclaim")
        _require(each.version or each.fence, "a refused command registers nothing")
        for agent in after.agents:
            if each.holds(agent.number):
                _require(each.exists, "nobody holds a copy of what does not exist")
                _require(agent.seen.get(artifact) == each.version, "a copy that may be served is the current version")

"""A workspace: the unit of consistency, as an application holds it.

Guarantees: one order of everything that happens in it; `write_all` all or none; `read_all` several artifacts at one
position. Closes cleanly, and refuses use after a fork. Does not: own more than its connection; everything it knows is
in the log.
"""

import contextlib
import dataclasses
import functools
import uuid
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ccs_stream.client.agent import ANY_VERSION, Agent, AnyVersion, seconds_to_us
from ccs_stream.client.cache.content_cache import DEFAULT_BYTES_MAX, ContentCache
from ccs_stream.client.cache.freshness import Freshness, delivery_freshness
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.degraded.fallback import Fallback
from ccs_stream.client.degraded.mode import DegradedMode
from ccs_stream.client.degraded.outbox import Outbox
from ccs_stream.client.degraded.outbox_drainer import OutboxDrainer, require_log
from ccs_stream.client.history import PastWorkspace, Watch, reading_of
from ccs_stream.client.observers.observers import WorkspaceObservers
from ccs_stream.client.operations.commit import UNNUMBERED, PendingContent
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.steps import Steps, in_background, run, run_async
from ccs_stream.client.options import DEFAULT_CONFIG, ClientConfig
from ccs_stream.client.recovery import SessionHeartbeat, beating, keep, recover, settings_with
from ccs_stream.client.results import Reading, Written
from ccs_stream.client.values import encode
from ccs_stream.coordinator.factory import open_coordinator
from ccs_stream.log.deliveries import decode_delivery
from ccs_stream.log.port import LogStore, Position
from ccs_stream.protocol.commands import ArtifactChange, Erase, Leave, Write, WriteMode
from ccs_stream.protocol.deliveries import DeliveryRecorded
from ccs_stream.protocol.errors import CcsError, Closed, UsageError
from ccs_stream.protocol.ids import ArtifactId, Scope, Version
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.statehash import state_hash

DEFAULT_WORKSPACE: Final = "default"
SETTLE_S: Final = 5.0
"""How long `deliveries` waits for what is still to be recorded."""
DEGRADED_S: Final = 3.0
"""How long closing waits for whoever tries a log that cannot be used."""
LEAVE_S: Final = 3.0
"""How long closing waits for a leader to record that the session has ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Put:
    """One write of `write_all`. With `expected`, only over that version (None: only if nothing exists)."""

    key: str
    value: object
    scope: Scope = ()
    expected: int | AnyVersion | None = ANY_VERSION
    ttl_s: float | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """One delete of `write_all`."""

    key: str
    scope: Scope = ()
    expected: int | AnyVersion | None = ANY_VERSION
    reason: str | None = None


Address = str | tuple[Scope, str]
"""A key, or (scope, key)."""


class Workspace:
    """Made by `ccs_stream.connect`; usable from every thread and event loop of the process."""

    def __init__(
        self,
        store: LogStore,
        name: str,
        *,
        settings: WorkspaceSettings | None = None,
        freshness: Freshness | str | None = None,
        body_cache_bytes: int = DEFAULT_BYTES_MAX,
        owns_store: bool = True,
        policy: ClientConfig = DEFAULT_CONFIG,
    ) -> None:
        self.name = name
        self.instance_id = str(uuid.uuid4())
        """Of this connection, in the streams of whoever watches it."""
        self._store = store
        self._owns_store = owns_store
        self._closed = False
        wanted = Freshness.parse(store.default_freshness if freshness is None else freshness)
        self.coordinator = open_coordinator(store, name, settings_with(policy.crash_recovery, settings))
        self.engine = Engine(
            self.coordinator,
            bodies=ContentCache(store, name, bytes_max=body_cache_bytes),
            freshness=wanted,
            rules=policy.rules,
        )
        self.degradation: DegradedMode | None = None
        """The mode of this workspace, where `on_error="degrade"`."""
        self.outbox: Outbox | None = None
        """What waits for a log that cannot be used, where there is one."""
        self._keeper: SessionHeartbeat | None = None
        try:
            policy.check_leases(self.engine.state.settings)
            if policy.degrades:
                self._degrade(policy.outbox)
            self.observers = WorkspaceObservers(self.engine, policy, instance_id=self.instance_id)
            self.engine.serving.give = self.observers.give
            self._keeper = keep(self.engine)
        except BaseException:
            self._stop_degrading()
            self.coordinator.close()
            raise

    def _degrade(self, path: Path | None) -> None:
        if path is not None:
            if self._store.instantaneous:
                raise UsageError("outbox= keeps writes for a log that is away, and a log in memory cannot be")
            self.outbox = Outbox(path, log_id=self._store.log_id, workspace=self.name)
        replayer = None if self.outbox is None else OutboxDrainer(self.outbox, self.coordinator)
        what = f"the workspace {self.name!r} of {self._store.display_url}"
        probe = functools.partial(require_log, self.coordinator)
        self.degradation = DegradedMode(what, probe, replayer)
        engine = self.engine
        engine.fallback = Fallback(self.coordinator, engine.bodies, engine.serving, self.degradation, self.outbox)
        self.degradation.watch()

    def _stop_degrading(self) -> None:
        if self.degradation is not None:
            self.degradation.close(DEGRADED_S)
        if self.outbox is not None:
            self.outbox.close()

    def __repr__(self) -> str:
        return f"Workspace({self.name!r}, {self._store.display_url!r})"

    def agent(self, name: str, *, conversation: str | None = None, generation: int | None = None) -> Agent:
        """An agent of this session. Agents join the log when they first act. Raises `UsageError` for an empty name.

        `conversation` names the model context that receives what the agent reads, and `generation` rises when that
        context is summarised, trimmed or begun anew: deliveries record both.
        """
        if type(name) is not str or not name:
            raise UsageError(f"an agent's name is a non-empty string, got {name!r}")
        if generation is not None and (type(generation) is not int or generation < 0):
            raise UsageError(f"generation is a whole number, 0 or more, got {generation!r}")
        self._check_open()
        known = conversation is not None or generation is not None
        return Agent(self.engine, name, (conversation, generation) if known else None)

    # Several artifacts at once.

    def write_all(self, changes: Iterable[Put | Delete], *, agent: str) -> list[Written]:
        """Commit all changes or none, in one decision; one result a change.

        Raises what `Agent.compare_and_set` raises, for the first change that is refused.
        """
        return run(self.coordinator, self._write_all(list(changes), agent, self.engine.scopes.current(agent)))

    def awrite_all(self, changes: Iterable[Put | Delete], *, agent: str) -> Coroutine[Any, Any, list[Written]]:
        """As `write_all`."""
        return run_async(self.coordinator, self._write_all(list(changes), agent, self.engine.scopes.current(agent)))

    def _write_all(self, asked: list[Put | Delete], agent: str, here: ReadSet) -> Steps[list[Written]]:
        self._check_open()
        if not asked:
            return []
        encoded = [encode(each.value) if isinstance(each, Put) else None for each in asked]
        # Half of what one record may hold travels inline; the rest goes to the content store, so that it fits.
        inline_left = self.engine.state.settings.maximum_decision_bytes // 2
        changes: list[ArtifactChange] = []
        outgoing: list[PendingContent] = []
        for each, body in zip(asked, encoded, strict=True):
            artifact = self.engine.address(tuple(each.scope), each.key)
            mode, base = _condition(each.expected, here, artifact)
            fence = here.fences.get(artifact)
            if isinstance(each, Delete) or body is None:
                changes.append(
                    Erase(
                        artifact=artifact,
                        mode=mode,
                        base_version=base,
                        fence=fence,
                        reason=each.reason,
                    )
                )
                continue
            sent = self.engine.prepare(*body, inline_left=inline_left, what=f"write of {each.key!r}")
            outgoing.append(sent)
            if not sent.uploaded:
                inline_left -= sent.content.size
            changes.append(
                Write(
                    artifact=artifact,
                    scope=tuple(each.scope),
                    key=each.key,
                    content=sent.content,
                    mode=mode,
                    base_version=base,
                    fence=fence,
                    ttl_us=None if each.ttl_s is None else seconds_to_us(each.ttl_s, "ttl_s"),
                    reason=each.reason,
                )
            )
        what = f"write_all of {len(changes)} changes"
        return (yield from self.engine.commit(agent, changes, here, what, outgoing))

    def read_all(
        self,
        addresses: Sequence[Address],
        *,
        agent: str | None = None,
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> list[Reading | None]:
        """Several artifacts as they stand at one position; takes no copies, so it appends nothing.

        With `agent`, that agent has read them in this execution scope, as far as guarded writes are concerned.
        """
        return run(self.coordinator, self._read_all(addresses, freshness, at_least, agent))

    def aread_all(
        self,
        addresses: Sequence[Address],
        *,
        agent: str | None = None,
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> Coroutine[Any, Any, list[Reading | None]]:
        """As `read_all`."""
        return run_async(self.coordinator, self._read_all(addresses, freshness, at_least, agent))

    def _read_all(
        self,
        addresses: Sequence[Address],
        freshness: Freshness | str | None,
        at_least: Position | str | None,
        agent: str | None,
    ) -> Steps[list[Reading | None]]:
        self._check_open()
        engine = self.engine
        engine.copies.tick()
        here = ReadSet() if agent is None else engine.scopes.current(agent)
        yield from engine.fresh(None if freshness is None else Freshness.parse(freshness), at_least)
        ids = [engine.address((), each) if isinstance(each, str) else engine.address(*each) for each in addresses]
        asked = delivery_freshness(freshness, at_least)
        served = yield from engine.read_all([(agent, artifact, here) for artifact in ids], freshness=asked)
        return [
            None if each is None else reading_of(each.state, each.body.body, each.position, stale=each.stale)
            for each in served
        ]

    # Looking around.

    def artifacts(self, *, scope: Scope = ()) -> list[tuple[Scope, str]]:
        """Addresses of what exists, under a scope prefix, sorted."""
        self._check_open()
        run(self.coordinator, self.engine.fresh(None, None))
        now, width = self.coordinator.now(), len(scope)
        with self.coordinator.lock:
            found = list(self.engine.state.artifacts.values())
        return sorted((each.scope, each.key) for each in found if each.readable(now) and each.scope[:width] == scope)

    def watch(self, *, scope: Scope = (), after: Position | str | None = None, values: bool = True) -> Watch:
        """Changes under a scope prefix as they are admitted, from now or behind a position."""
        self._check_open()
        self.coordinator.catch_up()
        position = None if after is None else Position.parse(after)
        return Watch(self.coordinator, scope=tuple(scope), after=position, values=values)

    def as_of(self, at: Position | str | int) -> PastWorkspace:
        """The workspace as it was at a position (or sequence): read-only."""
        self._check_open()
        return PastWorkspace(self._store, self.name, at if isinstance(at, int) else Position.parse(at))

    async def aas_of(self, at: Position | str | int) -> PastWorkspace:
        """As `as_of`."""
        return await in_background(self.coordinator, lambda: self.as_of(at))

    @property
    def stale(self) -> bool:
        """Whether the log cannot be reached now, so that the state may be older than it should be."""
        return self.engine.stale

    @property
    def is_degraded(self) -> bool:
        """Whether reads come from what is known here, and writes are refused or queued; see `on_error="degrade"`."""
        return self.degradation is not None and self.degradation.is_degraded

    @property
    def degradation_count(self) -> int:
        """How often the log failed somebody here, where `on_error="degrade"`."""
        return 0 if self.degradation is None else self.degradation.count

    def heartbeat(self) -> None:
        """Tell the log that this session is alive, where the workspace has crash recovery. It is told by itself, too.

        Raises the `LogError`s of the log.
        """
        self._check_open()
        run(self.coordinator, beating(self.engine))

    def recover(self, agent: str | None = None) -> None:
        """Have every copy that an agent (None: each of this session) holds fetched again before it is served.

        Raises `UsageError` for an agent that has not joined in this session.
        """
        self._check_open()
        recover(self.engine, agent)

    @property
    def position(self) -> Position:
        """Where the folded state stands."""
        return self.coordinator.position

    def state_hash(self) -> str:
        """Hash of the whole folded state: equal wherever the same log was folded."""
        self._check_open()
        self.coordinator.catch_up()
        with self.coordinator.lock:
            return state_hash(self.engine.state)

    def sweep(self) -> int:
        """End what has run out now, instead of when a command meets it; returns how many events that took."""
        self._check_open()
        return self.coordinator.sweep()

    def settle(self, timeout_s: float = SETTLE_S) -> bool:
        """Wait until what was read and written is recorded, told and pushed; False when that takes longer."""
        return self.observers.settle(timeout_s)

    def deliveries(self) -> Iterator[DeliveryRecorded]:
        """Who was given what, in the order in which it was recorded, by every process that recorded it.

        What this process has given is waited for, up to a few seconds. Raises `CorruptRecord`, `UnknownSchema`.
        """
        self._check_open()
        self.observers.settle(SETTLE_S)
        return map(decode_delivery, self._store.read_deliveries(self.name))

    # Leaving.

    def close(self) -> None:
        """Leave the log and let go of it. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.close()
        self.observers.close()
        self._stop_degrading()
        session = self.engine.session
        if session.joined and not self.engine.stale:
            # Courtesy: without it the session ends when there are too many, and holds its grants until then.
            leave = Leave(session_id=session.session_id, number=UNNUMBERED)
            with contextlib.suppress(CcsError):
                self.coordinator.execute(leave, session.numbers, timeout_s=LEAVE_S)
        self.coordinator.close()
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"the workspace {self.name!r} was closed: connect again")


def _condition(
    expected: int | AnyVersion | None, here: ReadSet, artifact: ArtifactId
) -> tuple[WriteMode, Version | None]:
    if isinstance(expected, AnyVersion):
        return WriteMode.LAST_WRITER_WINS, here.base(artifact)
    return WriteMode.COMPARE_AND_SET, None if expected is None else Version(expected)

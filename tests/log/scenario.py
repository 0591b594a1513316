"""One fixed history in which every event occurs: the source of the golden log.

Guarantees: the same bytes on every run; ids and times are constants. Does not: change; a new scenario is a new golden
log beside the old one, and so is the old scenario where what is decided says more than it did.
"""

import hashlib
import math

from ccs_stream.coordinator.batch import plan
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.port import Draft
from ccs_stream.protocol.admit import Cursor, advance
from ccs_stream.protocol.commands import (
    Acquire,
    Command,
    Commit,
    Content,
    Erase,
    Evict,
    Heartbeat,
    Join,
    Leave,
    Open,
    Read,
    Refresh,
    Release,
    Sweep,
    Write,
    WriteMode,
)
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import (
    NO_SESSION,
    CommandNumber,
    Fence,
    Hash,
    LogId,
    Micros,
    SessionId,
    Version,
    artifact_id,
)
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.records import LogOpened
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings

WORKSPACE = "golden"
SWEPT_S = 200
"""When the last sweep has taken grants back, and nobody has left."""
LOG_ID = LogId(bytes(range(16)))
ONE, TWO, THREE = (SessionId(bytes([n]) * 16) for n in (1, 2, 3))
T0 = 1_750_000_000_000_000
SETTINGS = WorkspaceSettings(
    crash_recovery=True,
    heartbeat_interval_us=Micros(5 * SECOND_US),
    session_timeout_us=Micros(30 * SECOND_US),
    maximum_hold_us=Micros(60 * SECOND_US),
)


def content(text: str) -> Content:
    """An inline body."""
    body = text.encode()
    return Content(
        content_type="application/json",
        content_encoding="",
        content_hash=Hash(hashlib.sha256(body).digest()),
        size=len(body),
        body=body,
    )


def write(
    key: str, text: str, *, base: int | None = None, cas: bool = False, fence: int | None = None, **more: object
) -> Write:
    """One write in scope ("team",)."""
    return Write(
        artifact=artifact_id(WORKSPACE, ("team",), key),
        scope=("team",),
        key=key,
        content=content(text),
        mode=WriteMode.COMPARE_AND_SET if cas else WriteMode.LAST_WRITER_WINS,
        base_version=None if base is None else Version(base),
        fence=None if fence is None else Fence(fence),
        **more,  # type: ignore[arg-type]
    )


def commands() -> list[tuple[float, Command]]:
    """What happens, and after how many seconds."""
    plan_id, tmp_id = (artifact_id(WORKSPACE, ("team",), key) for key in ("plan", "tmp"))
    n = CommandNumber

    def commit(session: SessionId, number: int, agent: str, *changes: Write | Erase) -> Commit:
        return Commit(session_id=session, number=n(number), agent=agent, changes=changes)

    def acquire(session: SessionId, number: int, agent: str, seconds: int) -> Acquire:
        return Acquire(
            session_id=session,
            number=n(number),
            agent=agent,
            artifact=plan_id,
            scope=("team",),
            key="plan",
            duration_us=Micros(seconds * SECOND_US),
        )

    stored = content("large")
    stored.body, stored.locator, stored.uploaded_at = None, b"7", Micros(T0)
    large = write("large", "large")
    large.content = stored
    return [
        (0, Open(session_id=NO_SESSION, number=n(0), settings=SETTINGS)),
        (1, Join(session_id=ONE, number=n(1), agent="planner")),
        (1, Join(session_id=TWO, number=n(1), agent="reviewer")),
        (1, Join(session_id=THREE, number=n(1), agent="ünïcode")),
        (2, commit(ONE, 2, "planner", write("plan", '{"step":1}', reason="a first plan"))),
        (3, Read(session_id=TWO, number=n(2), agent="reviewer", artifact=plan_id)),
        (3, Read(session_id=THREE, number=n(2), agent="ünïcode", artifact=plan_id)),
        (4, commit(ONE, 4, "planner", write("plan", '{"step":2}', base=1))),
        (5, commit(TWO, 3, "reviewer", write("plan", '{"step":3}', base=1))),
        (6, commit(THREE, 3, "ünïcode", write("plan", '{"step":4}', base=1, cas=True))),
        (
            7,
            commit(
                THREE,
                4,
                "ünïcode",
                write("a", "1", index_fields=("x", "y")),
                write("b", "2"),
                write("tmp", "3", ttl_us=Micros(100 * SECOND_US)),
            ),
        ),
        (20, Refresh(session_id=THREE, number=n(5), agent="ünïcode", artifact=tmp_id)),
        (21, acquire(ONE, 5, "planner", 10)),
        (22, commit(ONE, 6, "planner", write("plan", '{"step":5}', base=3, fence=1))),
        (23, commit(TWO, 4, "reviewer", write("plan", '{"step":6}', base=3))),
        (24, Release(session_id=ONE, number=n(7), agent="planner", artifact=plan_id, fence=Fence(1))),
        (25, acquire(ONE, 8, "planner", 1)),
        (27, acquire(TWO, 5, "reviewer", 2)),
        (28, commit(ONE, 9, "planner", write("plan", '{"step":7}', base=4))),
        (28, Read(session_id=ONE, number=n(10), agent="planner", artifact=plan_id)),
        (28, Heartbeat(session_id=ONE, number=n(11))),
        (29, Heartbeat(session_id=THREE, number=n(6))),
        (32, commit(THREE, 7, "ünïcode", large)),
        (32, Read(session_id=TWO, number=n(12), agent="reviewer", artifact=plan_id)),
        (33, commit(TWO, 6, "reviewer", Erase(artifact=plan_id, reason="done"))),
        (34, commit(TWO, 7, "reviewer", write("plan", '{"step":8}', base=5))),
        (100, Sweep(session_id=NO_SESSION, number=n(0), limit=100)),
        (200, Sweep(session_id=NO_SESSION, number=n(0), limit=100)),
        (201, Leave(session_id=TWO, number=n(8))),
        (202, Evict(session_id=ONE, number=n(12), target=THREE)),
        (203, commit(THREE, 8, "ünïcode", write("a", "late"))),
    ]


IDENTITY = ProcessIdentity(host="worker-3", pid=4711, program="app.py", release="1.2.3", labels={"run": "7"})


def play(
    until_s: float = math.inf, *, trace_parent: str | None = None, identity: ProcessIdentity | None = None
) -> tuple[list[Draft], Directory, Cursor]:
    """The records of the history, beginning with the one that opens the log; its state; where it ends.

    With `trace_parent`, every write carries it; with `identity`, every join does.
    """
    opened = LogOpened(log_id=LOG_ID, shards=0, partitioner="workspace", format=1, opened_at=Micros(T0))
    drafts = [Draft(DEFAULT_CODEC.encode_record(opened), decision=False)]
    state, cursor = Directory(), Cursor()
    advance(cursor, opened)
    for seconds, command in commands():
        if seconds > until_s:
            break
        if isinstance(command, Join) and identity is not None:
            for name, value in identity.members().items():
                setattr(command, name, value)
        for change in command.changes if isinstance(command, Commit) else ():
            if isinstance(change, Write):
                change.trace_parent = trace_parent
        now = Micros(T0 + int(seconds * SECOND_US))
        for planned in plan(state, cursor, WORKSPACE, [command], max(now, state.recorded_at)):
            if planned.draft is None or planned.record is None or planned.digest is None:
                continue
            drafts.append(planned.draft)
            fold_decision(state, planned.decision.events, planned.record)
            advance(cursor, planned.record, planned.digest)
    return drafts, state, cursor

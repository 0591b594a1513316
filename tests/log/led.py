"""The history of `scenario` once more, as a log has it whose leaders claim: two of them, beside another workspace.

Guarantees: the same bytes on every run; all the void there can be is in it. Does not: change; it is the source of a
golden archive.
"""

import hashlib
import itertools
from collections.abc import Iterator

from ccs_stream.coordinator.batch import plan
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import encode_head
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import Draft, StoredRecord
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.admit import Cursor, Verdict, advance
from ccs_stream.protocol.commands import Command, Commit, Content, Join, Open, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber, Epoch, Hash, LeaderId, Micros, SessionId, artifact_id
from ccs_stream.protocol.records import LeaderClaimed, LeaderResigned, LogOpened
from ccs_stream.protocol.settings import SECOND_US
from tests.log.scenario import LOG_ID, SETTINGS, T0, WORKSPACE, commands

OTHER = "other"
FIRST, SECOND, LATE = (LeaderId(bytes([n]) * 16) for n in (0xA1, 0xB2, 0xC3))
BUILD = "ccs-stream 0.1.0"
THEIRS = SessionId(bytes([9]) * 16)
SECRET = "what only the other workspace knows"
VOID = {"old_epoch": 2, "epoch_not_next": 1, "not_leader": 1, "foreign": 2, "reopened": 1}


class LedLog(MemoryLog):
    """A log in memory that is like a partition on Kafka: one shard of several workspaces, whose leaders claim."""

    serialises_writers = False
    finds_by_sequence = False

    def __init__(self) -> None:
        super().__init__(log_id=LOG_ID)
        self.states: dict[str, Directory] = {}
        self.cursor = Cursor()
        opened = LogOpened(log_id=LOG_ID, shards=1, partitioner="murmur2", format=1, opened_at=Micros(T0))
        self._shard("").records[0] = StoredRecord(0, DEFAULT_CODEC.encode_record(opened), tail=b"")
        advance(self.cursor, opened)

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        """All workspaces name the one shard."""
        for stored in super().read("", after, until=until):
            yield stored if bodies else StoredRecord(stored.offset, stored.head, tail=b"")

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        """As the port says, from the front."""
        for entry in ShardReader(self, shard).read():
            first, count = getattr(entry.record, "first_sequence", 0), len(entry.events)
            if entry.verdict is Verdict.ADMITTED and first <= sequence < first + count:
                return entry.stored
        return None

    def end(self, shard: str) -> int:
        """All workspaces name the one shard."""
        return super().end("")

    def workspaces(self) -> list[str]:
        """Those that were decided about."""
        return sorted(self.states)

    # Making it.

    def put(self, record: LeaderClaimed | LeaderResigned | LogOpened | bytes, *, void: bool = False) -> None:
        """Append what is no decision."""
        head = record if isinstance(record, bytes) else DEFAULT_CODEC.encode_record(record)
        self.append("", [Draft(head, decision=False)], self.end(""))
        if not void:
            assert not isinstance(record, bytes)
            advance(self.cursor, record)

    def claim(self, epoch: int, leader: LeaderId, seconds: float, *, void: bool = False) -> None:
        """Somebody claims to lead."""
        at = Micros(T0 + int(seconds * SECOND_US))
        claimed = LeaderClaimed(
            log_id=LOG_ID, epoch=Epoch(epoch), leader_id=leader, commands_log_id=LOG_ID, claimed_at=at, build=BUILD
        )
        self.put(claimed, void=void)

    def decide(self, workspace: str, seconds: float, command: Command) -> None:
        """The leader decides a command."""
        state = self.states.setdefault(workspace, Directory())
        now = Micros(max(T0 + int(seconds * SECOND_US), state.recorded_at))
        for planned in plan(state, self.cursor, workspace, [command], now):
            if planned.draft is None or planned.record is None or planned.digest is None:
                continue
            self.append("", [planned.draft], self.end(""))
            fold_decision(state, planned.decision.events, planned.record)
            advance(self.cursor, planned.record, planned.digest)

    def decide_late(self, workspace: str, seconds: float, command: Command, cursor: Cursor) -> None:
        """A leader that stands at `cursor`, and leads no more, decides a command; it becomes void."""
        now = Micros(T0 + int(seconds * SECOND_US))
        (planned,) = plan(self.states[workspace], cursor, workspace, [command], now)
        assert planned.record is not None
        self.append("", [Draft(encode_head(planned.record), (SECRET.encode(),))], self.end(""))


def their_commands() -> Iterator[Command]:
    """What happens in the other workspace."""
    yield Open(session_id=NO_SESSION, number=CommandNumber(0), settings=SETTINGS)
    yield Join(session_id=THEIRS, number=CommandNumber(1), agent="stranger")
    body = SECRET.encode()
    for number in itertools.count(2):
        content = Content(
            content_type="text/plain",
            content_encoding="",
            content_hash=Hash(hashlib.sha256(body).digest()),
            size=len(body),
            body=body,
        )
        write = Write(artifact=artifact_id(OTHER, (), "theirs"), scope=(), key="theirs", content=content)
        yield Commit(session_id=THEIRS, number=CommandNumber(number), agent="stranger", changes=(write,))


def play_led() -> LedLog:
    """The log: the first leader resigns in the middle, and is followed by what it, and others, had still sent."""
    log, theirs = LedLog(), their_commands()
    ours = commands()
    log.claim(1, FIRST, 0)
    for seconds, command in ours[:14]:
        log.decide(WORKSPACE, seconds, command)
        log.decide(OTHER, seconds, next(theirs))
    resigned = LeaderResigned(epoch=Epoch(1), leader_id=FIRST)
    former = log.cursor.copy()
    log.put(resigned)
    log.decide_late(WORKSPACE, 22, ours[14][1], former)
    log.claim(2, SECOND, 22.5)
    log.claim(2, LATE, 22.6, void=True)
    log.decide_late(WORKSPACE, 22, ours[14][1], former)
    log.put(b"this is no record", void=True)
    log.put(b"", void=True)
    opened = LogOpened(log_id=LOG_ID, shards=1, partitioner="murmur2", format=1, opened_at=Micros(T0))
    log.put(opened, void=True)
    for seconds, command in ours[14:]:
        log.decide(WORKSPACE, seconds, command)
        log.decide(OTHER, seconds, next(theirs))
    log.decide_late(OTHER, 300, next(theirs), former)
    return log

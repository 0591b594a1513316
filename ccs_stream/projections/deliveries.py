"""Checks deliveries against the log: whether agents were given the versions that the log says were current.

`ccs-replay verify` uses it. Guarantees: an independent account, like `invariants`. A delivery is a finding when its
version was replaced at or before the sequence at which the delivery says it was valid, when its version or hash is not
in the log, when its session's numbers have a gap, or when it names a sequence that the log has lost. A delivery whose
version was replaced before it was given, but at a later sequence than it names, is only counted: stale within its
bound. The same delivery twice counts once. Memory grows with the versions of the log: some 60 bytes each.

Does not: know of deliveries that were never recorded; the last ones of a killed process may be missing without a gap.
"""

import bisect
import collections
import dataclasses
from collections.abc import Iterator, Sequence

from ccs_stream.projections.invariants import FindingKind
from ccs_stream.protocol.deliveries import DeliveryOutcome, DeliveryRecorded
from ccs_stream.protocol.events import ArtifactDeleted, Event, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId

Found = tuple[FindingKind, int, str]
"""Kind, sequence, detail."""


@dataclasses.dataclass(slots=True)
class _Versions:
    """When each version of an artifact was made: version n is at index n - 1."""

    sequences: list[int] = dataclasses.field(default_factory=list)
    recorded_at: list[int] = dataclasses.field(default_factory=list)
    hashes: list[bytes] = dataclasses.field(default_factory=list)
    """Empty for a tombstone."""


class DeliveryChecks:
    """Call `decision` for every admitted decision, then `delivery` for every delivery, then `end`."""

    def __init__(self) -> None:
        self.deliveries = 0
        """Deliveries checked, each counted once."""
        self.stale_within_bound = 0
        """Deliveries given while a newer version existed that the reader had not asked for."""
        self._artifacts: dict[ArtifactId, _Versions] = {}
        self._end = 0
        self._last: dict[SessionId, int] = {}
        self._early: collections.defaultdict[SessionId, set[int]] = collections.defaultdict(set)
        """By session, numbers that came before their turn."""

    def decision(self, first_sequence: SequenceNumber, recorded_at: Micros, events: Sequence[Event]) -> None:
        """Take an admitted decision."""
        self._end = first_sequence + len(events) - 1
        for place, event in enumerate(events):
            if type(event) is WriteCommitted or type(event) is ArtifactDeleted:
                versions = self._artifacts.setdefault(event.artifact, _Versions())
                versions.sequences.append(first_sequence + place)
                versions.recorded_at.append(recorded_at)
                versions.hashes.append(event.content_hash if type(event) is WriteCommitted else b"")

    def delivery(self, each: DeliveryRecorded) -> Iterator[Found]:
        """Take a delivery; yields what is wrong with it."""
        if not self._is_new(each):
            return
        self.deliveries += 1
        at = each.valid_at_sequence
        if at > self._end:
            yield FindingKind.CUT_TAIL, at, f"{_said(each)} was valid at sequence {at}, and the log ends at {self._end}"
            return
        versions = self._artifacts.get(each.artifact) or _Versions()
        current = bisect.bisect_right(versions.sequences, at)
        if each.version > len(versions.sequences):
            yield FindingKind.DELIVERY, at, f"{_said(each)} is of a version that the log does not have"
        elif each.version > current:
            yield FindingKind.DELIVERY, at, f"{_said(each)} is of a version made later, at {self._made(versions, each)}"
        elif each.version < current:
            replaced = versions.sequences[each.version]
            yield (
                FindingKind.STALE_DELIVERY,
                at,
                f"{_said(each)} was replaced at sequence {replaced}, which is not later",
            )
        elif each.outcome is DeliveryOutcome.CONTENT and versions.hashes[each.version - 1] != each.content_hash:
            yield FindingKind.DELIVERY, at, f"{_said(each)} has another hash than the log has"
        elif each.version < len(versions.sequences) and versions.recorded_at[each.version] < each.at:
            self.stale_within_bound += 1

    def end(self) -> Iterator[Found]:
        """Yields the gaps in the numbers, once all deliveries were taken."""
        for session, early in self._early.items():
            first, last = self._last.get(session, 0) + 1, max(early)
            missing = last - self._last.get(session, 0) - len(early)
            yield (
                FindingKind.DELIVERY_GAP,
                0,
                f"session {session.hex()[:8]}: {missing} deliveries between numbers {first} and {last} are missing",
            )

    def _is_new(self, each: DeliveryRecorded) -> bool:
        session, number = each.session_id, each.number
        last = self._last.get(session, 0)
        if number <= last or (session in self._early and number in self._early[session]):
            return False
        if number != last + 1:
            self._early[session].add(number)
            return True
        early = self._early.get(session, ())
        while number + 1 in early:
            number += 1
            self._early[session].discard(number)
        self._last[session] = number
        if session in self._early and not self._early[session]:
            del self._early[session]
        return True

    @staticmethod
    def _made(versions: _Versions, each: DeliveryRecorded) -> int:
        return versions.sequences[each.version - 1]


def _said(each: DeliveryRecorded) -> str:
    return f"delivery {each.number} of session {each.session_id.hex()[:8]} ({each.agent!r}, version {each.version})"

"""Look-ups in the past of a log."""

import pytest

from ccs_stream.log.history import decision_at, find_decision, version_at
from ccs_stream.log.memory import MemoryLog
from ccs_stream.protocol.errors import LogDiverged
from ccs_stream.protocol.events import GrantIssued, WorkspaceOpened, WriteCommitted
from ccs_stream.testing.records import Chain
from tests.log.samples import EVENTS


@pytest.fixture
def store() -> MemoryLog:
    """Three decisions: sequence 1; sequences 2 and 3; sequence 4."""
    log, chain = MemoryLog(), Chain("w")
    drafts = [
        chain.draft([EVENTS["WorkspaceOpened"]]),
        chain.draft([EVENTS["WriteCommitted"], EVENTS["GrantIssued"]]),
        chain.draft([EVENTS["ArtifactDeleted"]]),
    ]
    with log.turn("w"):
        log.append("w", drafts, 0)
    return log


def test_each_sequence_has_its_own_event(store: MemoryLog) -> None:
    assert [type(decision_at(store, "w", sequence).event(sequence)) for sequence in (1, 2, 3)] == [
        WorkspaceOpened,
        WriteCommitted,
        GrantIssued,
    ]
    decision = decision_at(store, "w", 3)
    assert decision.events() == [EVENTS["WriteCommitted"], EVENTS["GrantIssued"]]
    assert (decision.last_sequence, decision.stored.offset) == (3, 2)
    following = decision_at(store, "w", 4)
    assert following.record.prev_hash == decision.hash == decision.position(store, "w").hash


def test_a_version_is_a_write_or_a_deletion(store: MemoryLog) -> None:
    assert version_at(store, "w", 2).event == EVENTS["WriteCommitted"]
    assert version_at(store, "w", 4).event == EVENTS["ArtifactDeleted"]
    with pytest.raises(LogDiverged, match="GrantIssued"):
        version_at(store, "w", 3)


def test_a_sequence_that_the_log_does_not_hold_is_absent_or_an_error(store: MemoryLog) -> None:
    assert find_decision(store, "w", 5) is None
    with pytest.raises(LogDiverged, match="sequence 5"):
        decision_at(store, "w", 5)

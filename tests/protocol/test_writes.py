"""Committing and deleting: versions, bases, conflicts, expiry, limits."""

import pytest

from ccs_stream.protocol.events import (
    ArtifactDeleted,
    ArtifactRegistered,
    CommandRefused,
    DeleteReason,
    GrantIssued,
    GrantsInvalidated,
    RefusalReason,
    WriteCommitted,
)
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.given_when_then import Story


def test_a_first_write_registers_the_address_and_is_version_1() -> None:
    story = Story()
    story.when(story.write("a", "k")).then(ArtifactRegistered, WriteCommitted)
    assert story.artifact("k").version == 1
    assert story.grant("a", "k") is GrantState.MODIFIED


def test_every_write_is_one_version_more_even_with_the_same_content() -> None:
    story = Story()
    story.given(story.write("a", "k", "same"), story.write("a", "k", "same"))
    assert story.artifact("k").version == 2


def test_a_write_names_all_holders_but_its_author_in_one_event() -> None:
    story = Story()
    story.given(story.write("a", "k"), *(story.read(name, "k") for name in "bcd"))
    story.when(story.write("b", "k")).then(WriteCommitted, GrantsInvalidated)
    named = story.events[1]
    assert isinstance(named, GrantsInvalidated)
    assert named.sharers == sorted(story.participant(name) for name in "acd")
    assert [story.grant(name, "k") for name in "abcd"] == ["I", "M", "I", "I"]


def test_a_write_names_the_owner_it_takes_over_from() -> None:
    story = Story()
    story.given(story.write("a", "k"))
    story.when(story.write("b", "k")).then(WriteCommitted, GrantsInvalidated)
    named = story.events[1]
    assert isinstance(named, GrantsInvalidated)
    assert (named.owner, named.owner_state, named.sharers) == (story.participant("a"), GrantState.MODIFIED, [])


def test_quadratic_cost_of_a_write_in_the_number_of_readers() -> None:
    story = Story()
    story.given(story.write("a", "k"), *(story.read(f"r{number}", "k") for number in range(200)))
    story.when(story.write("a", "k")).then(WriteCommitted, GrantsInvalidated)
    story.when(story.write("a", "k")).then(WriteCommitted)


def test_last_writer_wins_over_a_version_it_never_saw_and_the_base_is_on_record() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.write("b", "k", base=1))
    story.when(story.write("a", "k", base=1))
    event = story.events[0]
    assert isinstance(event, WriteCommitted)
    assert (event.version, event.base_version) == (3, 1)


@pytest.mark.parametrize(("base", "accepted"), [(2, True), (1, False), (3, False), (0, False), (None, False)])
def test_compare_and_set_wants_the_current_version(base: int | None, *, accepted: bool) -> None:
    story = Story()
    story.given(story.write("a", "k"), story.write("a", "k"))
    story.when(story.write("b", "k", base=base, cas=True))
    if accepted:
        assert story.artifact("k").version == 3
    else:
        story.refused(RefusalReason.VERSION_CONFLICT)
        assert (story.refusal.current_version, story.artifact("k").version) == (2, 2)


@pytest.mark.parametrize("base", [None, 0])
def test_compare_and_set_creates_an_artifact_that_never_existed(base: int | None) -> None:
    story = Story()
    story.when(story.write("a", "k", base=base, cas=True)).then(ArtifactRegistered, WriteCommitted)


def test_compare_and_set_after_a_delete_compares_with_the_tombstone() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.delete("a", "k"))
    story.when(story.write("b", "k", base=1, cas=True)).refused(RefusalReason.VERSION_CONFLICT)
    story.when(story.write("b", "k", base=0, cas=True)).refused(RefusalReason.VERSION_CONFLICT)
    story.when(story.write("b", "k", base=2, cas=True)).then(WriteCommitted)
    story.given(story.delete("b", "k"))
    story.when(story.write("c", "k", base=None, cas=True)).then(WriteCommitted)
    assert story.artifact("k").version == 5


def test_a_delete_is_a_tombstone_version_and_invalidates_every_holder() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.read("b", "k"))
    story.when(story.delete("a", "k")).then(ArtifactDeleted, GrantsInvalidated)
    assert (story.artifact("k").version, story.artifact("k").exists) == (2, False)
    assert [story.grant(name, "k") for name in "ab"] == ["I", "I"]
    story.when(story.read("b", "k")).nothing()
    story.when(story.write("b", "k"))
    assert story.artifact("k").version == 3


def test_a_delete_of_an_artifact_that_does_not_exist_changes_nothing() -> None:
    story = Story()
    story.when(story.delete("a", "k")).nothing()
    story.given(story.write("a", "k"), story.delete("a", "k"))
    story.when(story.delete("a", "k")).nothing()


def test_a_conditional_delete_is_refused_over_another_version() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.write("a", "k"))
    story.when(story.delete("b", "k", base=1, cas=True)).refused(RefusalReason.VERSION_CONFLICT)
    story.when(story.delete("b", "k", base=2, cas=True)).then(ArtifactDeleted, GrantsInvalidated)


def test_commit_all_is_all_or_none() -> None:
    story = Story()
    story.given(story.write("a", "old"))
    story.when(story.commit("b", story.change("new"), story.change("old", base=9, cas=True)))
    story.refused(RefusalReason.VERSION_CONFLICT)
    assert story.id("new") not in story.state.artifacts
    story.when(story.commit("b", story.change("new"), story.erase("old"), story.erase("absent")))
    story.then(ArtifactRegistered, WriteCommitted, ArtifactDeleted, GrantsInvalidated)


def test_phantom_artifact_after_a_failed_write() -> None:
    story = Story()
    story.when(story.write("a", "k", base=5, cas=True)).refused(RefusalReason.VERSION_CONFLICT)
    assert story.state.artifacts == {}
    story.when(story.read("a", "k")).nothing()


def test_one_commit_changes_an_artifact_once() -> None:
    story = Story()
    story.when(story.commit("a", story.change("k", "1"), story.change("k", "2")))
    story.refused(RefusalReason.DUPLICATE_ARTIFACT)


def test_limits_are_those_of_the_workspace() -> None:
    story = Story(WorkspaceSettings(maximum_changes=2, maximum_content_bytes=100, inline_content_bytes=50))
    story.when(story.commit("a", *(story.change(f"k{n}") for n in range(3)))).refused(RefusalReason.TOO_MANY_CHANGES)
    story.when(story.write("a", "k", size=101)).refused(RefusalReason.CONTENT_TOO_LARGE)
    story.when(story.write("a", "k", size=100)).then(ArtifactRegistered, WriteCommitted)


def test_an_upload_older_than_the_grace_time_is_refused() -> None:
    story = Story(WorkspaceSettings(content_grace_us=Micros(10 * SECOND_US)))
    uploaded = story.now
    story.given(story.write("a", "k", uploaded_at=uploaded))
    story.after(11)
    story.when(story.write("a", "k", uploaded_at=uploaded)).refused(RefusalReason.CONTENT_TOO_OLD)


def test_an_expired_life_is_ended_by_the_read_that_meets_it() -> None:
    story = Story()
    story.given(story.write("a", "k", ttl_s=10), story.read("b", "k"))
    story.after(10)
    story.when(story.read("b", "k")).then(ArtifactDeleted, GrantsInvalidated)
    event = story.events[0]
    assert isinstance(event, ArtifactDeleted)
    assert (event.reason, event.version, event.participant) == (DeleteReason.EXPIRED, 2, 0)
    story.when(story.read("b", "k")).nothing()


def test_a_write_over_an_expired_life_first_records_its_end() -> None:
    story = Story()
    story.given(story.write("a", "k", ttl_s=10), story.read("b", "k"))
    story.after(11)
    story.when(story.write("b", "k", base=1, cas=True)).refused(RefusalReason.VERSION_CONFLICT)
    story.when(story.write("b", "k", cas=True)).then(ArtifactDeleted, GrantsInvalidated, WriteCommitted)
    deleted, _, written = story.events
    assert isinstance(deleted, ArtifactDeleted)
    assert isinstance(written, WriteCommitted)
    assert (deleted.version, written.version) == (2, 3)
    assert written.previous_sequence == story.state.sequence - 2
    assert story.artifact("k").created_at == story.now


def test_each_version_links_to_the_event_it_replaced() -> None:
    story = Story()
    sequences = []
    for command in (story.write("a", "k"), story.write("a", "k"), story.delete("a", "k"), story.write("a", "k")):
        previous = story.artifact("k").sequence if story.id("k") in story.state.artifacts else 0
        story.when(command)
        event = next(each for each in story.events if isinstance(each, WriteCommitted | ArtifactDeleted))
        assert event.previous_sequence == previous
        sequences.append(story.artifact("k").sequence)
    assert sequences == sorted(sequences)


def test_created_at_is_kept_over_writes_and_starts_again_after_a_delete() -> None:
    story = Story()
    story.given(story.write("a", "k"))
    created = story.artifact("k").created_at
    story.after(5).given(story.write("a", "k"))
    assert (story.artifact("k").created_at, story.artifact("k").updated_at) == (created, story.now)
    story.after(5).given(story.delete("a", "k"))
    story.after(5).given(story.write("a", "k"))
    assert story.artifact("k").created_at == story.now


def test_a_clock_that_goes_back_does_not_revive_an_expired_artifact() -> None:
    story = Story()
    story.given(story.write("a", "k", ttl_s=10))
    story.after(20).given(story.write("a", "other"))
    story.after(-20)
    story.when(story.read("b", "k")).then(ArtifactDeleted, GrantsInvalidated)


def test_a_refused_command_leaves_only_its_event() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k", 1))
    story.after(2)
    before = story.state.sequence
    story.when(story.write("a", "k")).refused(RefusalReason.RECLAIMED)
    assert story.state.sequence == before + 1
    assert isinstance(story.events[0], CommandRefused)
    story.when(story.read("a", "k"))
    assert isinstance(story.events[-1], GrantIssued)

"""Streams of lines: what is missing, repeated, garbled, or of another form."""

import dataclasses
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.projections.metric_events import SCHEMA_VERSION, StoreMetricEvent
from ccs_stream.projections.state_log import content_audit_entry, state_log_entry
from ccs_stream.projections.stream_checks import EXAMPLES_KEPT, SCHEMAS, StreamChecks, StreamKind, stream_of
from ccs_stream.projections.transitions import Transition, TransitionTrigger
from ccs_stream.protocol.ids import ArtifactId, Micros, ParticipantNumber, SequenceNumber, Version
from ccs_stream.protocol.states import GrantState

Line = dict[str, Any]
ARTIFACT = ArtifactId(bytes(16))


def state(number: int, instance: str = "one", **changed: Any) -> Line:
    transition = Transition(
        artifact=ARTIFACT,
        agent="planner",
        participant=ParticipantNumber(1),
        from_state=GrantState.EXCLUSIVE,
        to_state=GrantState.MODIFIED,
        trigger=TransitionTrigger.COMMIT,
        version=Version(1),
        content_hash="ab" * 32,
        sequence=SequenceNumber(number),
        recorded_at=Micros(0),
    )
    return {**state_log_entry(transition, sequence_number=number, instance_id=instance), **changed}


def audit(number: int, instance: str = "one", **changed: Any) -> Line:
    entry = content_audit_entry(
        agent=None,
        artifact=ARTIFACT,
        version=None,
        content_hash=None,
        source="fetch",
        outcome="empty",
        sequence=SequenceNumber(number),
        sequence_number=number,
        instance_id=instance,
    )
    return {**entry, **changed}


def metric(number: int, instance: str = "one", **changed: Any) -> Line:
    event = StoreMetricEvent(
        operation="get",
        namespace=("planner", "shared"),
        key="plan",
        agent_name="planner",
        tokens_consumed=1,
        cache_hit=True,
        tick=number,
        sequence_number=number,
        instance_id=instance,
        schema_version=SCHEMA_VERSION,
    )
    return {**dataclasses.asdict(event), **changed}


def without(line: Line, *keys: str) -> Line:
    return {key: value for key, value in line.items() if key not in keys}


def check(*lines: Line | str, ends: dict[str, dict[str, int]] | None = None) -> StreamChecks:
    checks = StreamChecks()
    for number, line in enumerate(lines, start=1):
        checks.line(number, (line if isinstance(line, str) else json.dumps(line)).encode())
    if ends is not None:
        checks.tail(ends)
    return checks


def found(checks: StreamChecks) -> list[tuple[StreamKind, int]]:
    return [(each.kind, each.line) for examples in checks.examples.values() for each in examples]


def test_whole_streams_of_every_kind_mixed_in_one_file_are_clean() -> None:
    checks = check(
        state(1), audit(1), metric(1), "", state(1, "two"), state(2), metric(2), "  \r", audit(2), state(2, "two"),
        ends={"one": {"ccs.state_log": 2, "ccs.content_audit": 2, "ccs.metric": 2}, "two": {"ccs.state_log": 2}},
    )  # fmt: skip
    assert found(checks) == []
    assert checks.lines == 8
    assert len(checks.seen) == 4


def test_two_instances_interleaved_are_no_gaps() -> None:
    checks = check(*(state(number, instance) for number in range(1, 5) for instance in ("one", "two", "three")))
    assert found(checks) == []


@given(st.integers(0, 2**32))
def test_any_interleaving_is_clean_and_any_lost_line_is_found(seed: int) -> None:
    chance = random.Random(seed)
    streams = [[make(n, who) for n in range(1, 9)] for make in (state, audit, metric) for who in ("one", "two")]
    ends = {who: {"ccs.state_log": 8, "ccs.content_audit": 8, "ccs.metric": 8} for who in ("one", "two")}
    mixed: list[Line] = []
    while any(streams):
        mixed.append(chance.choice([each for each in streams if each]).pop(0))
    assert found(check(*mixed, ends=ends)) == []
    lost = mixed.pop(chance.randrange(len(mixed)))
    kind = {1: StreamKind.LATE_START, 8: StreamKind.CUT_TAIL}.get(lost["sequence_number"], StreamKind.GAP)
    checks = check(*mixed, ends=ends)
    assert checks.counts == {kind: 1}
    finding = checks.examples[kind][0]
    assert (finding.stream, finding.instance_id) == (stream_of(lost["schema_version"]), lost["instance_id"])


def test_a_gap_names_the_missing_numbers_and_the_line_after_them() -> None:
    checks = check(state(1), state(2), state(6), state(8))
    assert found(checks) == [(StreamKind.GAP, 3), (StreamKind.GAP, 4)]
    assert [each.detail for each in checks.examples[StreamKind.GAP]] == [
        "3 to 5 are missing before 6",
        "7 is missing before 8",
    ]


def test_a_number_that_comes_again_is_found_and_the_lines_after_it_are_not() -> None:
    assert found(check(state(1), state(2), state(2), state(1), state(3))) == [
        (StreamKind.DUPLICATE, 3),
        (StreamKind.DUPLICATE, 4),
    ]


def test_a_stream_that_does_not_begin_at_one_has_lost_its_head() -> None:
    assert found(check(state(2), state(3))) == [(StreamKind.LATE_START, 1)]


def test_a_cut_tail_is_found_and_so_is_a_stream_that_is_gone() -> None:
    ends = {"one": {"ccs.state_log": 3}, "two": {"ccs.metric": 2}}
    checks = check(state(1), state(2), ends=ends)
    assert found(checks) == [(StreamKind.CUT_TAIL, 2), (StreamKind.CUT_TAIL, 0)]
    assert [each.detail for each in checks.examples[StreamKind.CUT_TAIL]] == [
        "lines to 3 were written, and the file ends at 2: 1 is missing",
        "lines to 2 were written, and the file ends at 0: 2 are missing",
    ]
    assert found(check(state(1), state(2), state(3), state(4), ends={"one": {"ccs.state_log": 3}})) == []


@pytest.mark.parametrize("text", ["{", '{"a": 1', "nonsense", '{"a": NaN}', "[1]", "3", "null"])
def test_a_line_that_is_no_object_is_found_by_its_number(text: str) -> None:
    assert found(check(state(1), "", text, state(2))) == [(StreamKind.MALFORMED, 3)]


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (state(1, schema_version="ccs.state_log.v3"), StreamKind.UNKNOWN_SCHEMA, "this release knows ccs.state_log.v2"),
        (state(1, schema_version="mine.v1"), StreamKind.UNKNOWN_SCHEMA, "known are"),
        (state(1, schema_version=None), StreamKind.UNKNOWN_SCHEMA, "null"),
        (without(state(1), "schema_version"), StreamKind.MISSING_KEY, "schema_version"),
        (without(state(1), "tick"), StreamKind.MISSING_KEY, "tick is missing"),
        (without(metric(1), "sequence_number"), StreamKind.MISSING_KEY, "sequence_number"),
        (state(1, more=1, other=2), StreamKind.EXTRA_KEY, '"more", "other"'),
        (state(1, sequence_number=True), StreamKind.WRONG_TYPE, "sequence_number is true, not a whole number"),
        (state(1, tick=True), StreamKind.WRONG_TYPE, "tick is true"),
        (state(1, tick=1.0), StreamKind.WRONG_TYPE, "tick is 1.0"),
        (state(1, version="1"), StreamKind.WRONG_TYPE, 'version is "1"'),
        (state(1, agent_name=3), StreamKind.WRONG_TYPE, "not text or null"),
        (state(1, from_state="M"), StreamKind.WRONG_TYPE, "EXCLUSIVE, INVALID, MODIFIED, SHARED"),
        (state(1, trigger="steal"), StreamKind.WRONG_TYPE, '"steal"'),
        (audit(1, source="guess"), StreamKind.WRONG_TYPE, "cache_hit"),
        (audit(1, outcome=None), StreamKind.WRONG_TYPE, "content, empty, error"),
        (metric(1, cache_hit=1), StreamKind.WRONG_TYPE, "true or false"),
        (metric(1, namespace="a/b"), StreamKind.WRONG_TYPE, "a list"),
        (metric(1, key="x" * 100, tick="y" * 100), StreamKind.WRONG_TYPE, "..."),
    ],
)  # fmt: skip
def test_a_line_of_another_form_is_found_with_its_defect(line: Line, kind: StreamKind, said: str) -> None:
    checks = check(line)
    assert found(checks) == [(kind, 1)]
    assert said in checks.examples[kind][0].detail


def test_a_line_of_a_later_schema_still_counts_in_its_stream() -> None:
    later = state(2, schema_version="ccs.state_log.v3")
    assert found(check(state(1), later, state(3))) == [(StreamKind.UNKNOWN_SCHEMA, 2)]


def test_only_some_findings_are_kept_as_examples_and_all_are_counted() -> None:
    checks = check(*["x"] * (EXAMPLES_KEPT + 5))
    assert checks.counts == {StreamKind.MALFORMED: EXAMPLES_KEPT + 5}
    assert len(checks.examples[StreamKind.MALFORMED]) == EXAMPLES_KEPT


def test_the_schemas_are_those_of_the_lines_that_are_written() -> None:
    for line in (state(1), audit(1), metric(1)):
        assert list(SCHEMAS[line["schema_version"]]) == list(line)


def test_a_stream_is_the_same_in_every_version() -> None:
    assert stream_of("ccs.state_log.v2") == stream_of("ccs.state_log.v3") == "ccs.state_log"
    assert stream_of("other") == "other"

"""`verify`: check every rule that a log must keep.

Guarantees: it takes one pass, with memory bounded by the state. It checks the invariants of `projections.invariants`,
the hash chain, the head, who led when, the hashes of contents, the tail if there is an anchor, and whether agents were
given what was there. If deliveries are checked, memory grows with the number of versions. Does not: find a forger who
recomputes the chain, or look into the events of other workspaces of the shard (it does check their chains).

On Kafka void records are normal and only counted: late records of former leaders, claims that came second, what another
program wrote to the topic. One kind is a finding: a leader's next decision that does not continue its workspace says
that records before it are gone.
"""

import dataclasses
import hashlib
from pathlib import Path

from ccs_stream.log.archive import ArchiveLog
from ccs_stream.log.deliveries import decode_delivery
from ccs_stream.log.port import Position
from ccs_stream.log.reader import LogEntry, ShardReader, record_is_missing
from ccs_stream.projections.deliveries import DeliveryChecks
from ccs_stream.projections.invariants import FindingKind, Invariants
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import ContentMissing, CorruptRecord, LogDiverged, LogError, MissingHead, UsageError
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import Hash, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.replay.epochs import EpochHistory, LeadershipChecks
from ccs_stream.replay.exit_codes import EXIT_CLEAN, EXIT_FINDINGS
from ccs_stream.replay.output import console, print_json, say, table
from ccs_stream.replay.source import Source, decision_of


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyOptions:
    """The options of `verify`."""

    anchor: Path | None = None
    expect_end: str | None = None
    bodies: bool = True
    allow_loss: bool = False
    deliveries: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class _ExpectedEnd:
    """A sequence that must be in the log, as the last one of a decision with this hash."""

    sequence: SequenceNumber
    hash: Hash
    said_by: str


@dataclasses.dataclass(slots=True)
class VerifyResult:
    """The findings of one pass."""

    found: Invariants = dataclasses.field(default_factory=Invariants)
    epochs: EpochHistory = dataclasses.field(default_factory=EpochHistory)
    records: int = 0
    """Records of the shard that could be read."""
    deliveries: DeliveryChecks | None = None
    """None if no deliveries were checked."""


def run(source: Source, options: VerifyOptions, *, as_json: bool) -> int:
    """Check the log and print the findings; returns the exit code."""
    return report(check(source, options), options, source.store.display_url, source.workspace, as_json=as_json)


def report_unreadable(url: str, workspace: str | None, error: LogError, *, as_json: bool) -> int:
    """Print the one finding about a log that cannot be opened; returns the exit code."""
    checked = VerifyResult()
    checked.found.find(FindingKind.MISSING_HEAD, str(error))
    return report(checked, VerifyOptions(bodies=False), url, workspace, as_json=as_json)


def report(checked: VerifyResult, options: VerifyOptions, url: str, workspace: str | None, *, as_json: bool) -> int:
    """Print the findings; returns the exit code."""
    given = checked.deliveries
    found, void = checked.found, dict(sorted(checked.epochs.void.items()))
    code = EXIT_FINDINGS if found.violations or (found.losses and not options.allow_loss) else EXIT_CLEAN
    counts = {kind.value: count for kind, count in sorted(found.counts.items())}
    examples = [
        {"kind": each.kind.value, "severity": each.kind.severity, "sequence": each.sequence, "detail": each.detail}
        for kind in sorted(found.examples)
        for each in found.examples[kind]
    ]
    if as_json:
        print_json(
            {
                "source": url,
                "workspace": workspace,
                "records": checked.records,
                "events": found.events,
                "claims": len(checked.epochs.epochs),
                "void_records": void,
                "violations": found.violations,
                "losses": found.losses,
                "bodies_checked": options.bodies,
                "deliveries_checked": given is not None,
                "deliveries": 0 if given is None else given.deliveries,
                "stale_within_bound": 0 if given is None else given.stale_within_bound,
                "counts": counts,
                "findings": examples,
                "exit_code": code,
            }
        )
        return code
    if examples:
        rows = [(each["severity"], each["kind"], each["sequence"], each["detail"]) for each in examples]
        console().print(table("", ("severity", "finding", "sequence", "detail"), rows))
        for kind, count in counts.items():
            say(f"{count:>8}  {kind}")
    for verdict, count in void.items():
        say(f"{count:>8}  void: {verdict}")
    led = f", {len(checked.epochs.epochs)} epochs" if checked.epochs.epochs else ""
    bodies = "bodies checked" if options.bodies else "bodies not checked"
    say(
        f"{'clean' if code == EXIT_CLEAN else 'FINDINGS'}: {checked.records} records{led}, {found.events} events, "
        f"{found.violations} violations, {found.losses} lost updates ({bodies}; {_said_of(given)})"
    )
    return code


def _said_of(given: DeliveryChecks | None) -> str:
    if given is None:
        return "deliveries not checked"
    stale = f", {given.stale_within_bound} of them stale within their bound" if given.stale_within_bound else ""
    return f"{given.deliveries} deliveries checked{stale}"


def check(source: Source, options: VerifyOptions) -> VerifyResult:
    """Check the log. Raises `UsageError` if the log holds nothing of the workspace."""
    expected, checked = _expectations(source, options), VerifyResult()
    found, reader = checked.found, source.reader()
    leadership = LeadershipChecks(found, claimed=not source.store.serialises_writers)
    if options.deliveries and next(iter(source.store.read_deliveries(source.workspace)), None) is not None:
        checked.deliveries = DeliveryChecks()
    try:
        for entry in source.entries(reader, bodies=options.bodies):
            checked.epochs.take(entry, reader.cursor)
            _entry(source, found, reader, entry, leadership, bodies=options.bodies)
            record = decision_of(entry)
            if record is not None and checked.deliveries is not None:
                checked.deliveries.decision(record.first_sequence, record.recorded_at, entry.events)
            if expected and record is not None:
                _expect(found, expected, reader.cursor.end(source.workspace).sequence, entry.hash)
        _end(source, found, reader, expected)
        if checked.deliveries is not None:
            _deliveries(source, found, checked.deliveries)
    except MissingHead as error:
        found.find(FindingKind.MISSING_HEAD, str(error))
    except CorruptRecord as error:
        found.find(FindingKind.CORRUPT_RECORD, str(error))
    except LogDiverged as error:
        found.find(FindingKind.HASH_CHAIN, str(error))
    checked.epochs.end(reader.cursor)
    checked.records = reader.cursor.admitted + reader.cursor.void
    if not found.events and not found.violations:
        raise source.nothing(reader)
    return checked


def _end(source: Source, found: Invariants, reader: ShardReader, expected: list[_ExpectedEnd]) -> None:
    log_id, end = reader.cursor.log_id, reader.cursor.end(source.workspace).sequence
    if log_id is None:
        found.find(FindingKind.MISSING_HEAD, f"{source.store.display_url} holds no record of {source.workspace!r}")
    elif log_id != source.store.log_id:
        found.find(FindingKind.DIVERGED, "the shard belongs to another log than the rest: two logs were mixed")
    for each in expected:
        detail = f"the log ends at sequence {end}, {each.said_by} knows of {each.sequence}: its tail is missing"
        found.find(FindingKind.CUT_TAIL, detail)


def _deliveries(source: Source, found: Invariants, checks: DeliveryChecks) -> None:
    kept = 0
    for data in source.store.read_deliveries(source.workspace):
        kept += 1
        for kind, sequence, detail in checks.delivery(decode_delivery(data)):
            found.find(kind, detail, sequence)
    for kind, sequence, detail in checks.end():
        found.find(kind, detail, sequence)
    stored = source.store.deliveries_end(source.workspace)
    if stored is not None and kept < stored:
        found.find(FindingKind.CUT_TAIL, f"{stored} deliveries were kept, and {kept} are there", 0)


def _entry(
    source: Source,
    found: Invariants,
    reader: ShardReader,
    entry: LogEntry,
    leadership: LeadershipChecks,
    *,
    bodies: bool,
) -> None:
    record = entry.record
    if entry.verdict is not Verdict.ADMITTED:
        alone = source.store.serialises_writers
        if record_is_missing(reader.cursor, record) if alone else entry.verdict is Verdict.SEQUENCE_GAP:
            found.find(
                FindingKind.VOID_RECORD, f"record at offset {entry.offset} does not continue the log: {entry.verdict}"
            )
        return
    leadership.take(entry)
    if not isinstance(record, DecisionRecord):
        return
    found.decision(record, entry.events)
    if bodies:
        for event in entry.events:
            if type(event) is WriteCommitted:
                _body(source, found, entry, event)


def _body(source: Source, found: Invariants, entry: LogEntry, event: WriteCommitted) -> None:
    if event.content_locator is not None:
        try:
            body = source.store.get_content(event.content_locator)
        except ContentMissing as error:
            found.find(FindingKind.CONTENT, str(error))
            return
    else:
        contents = entry.stored.contents
        if event.content_index is None or event.content_index >= len(contents):
            found.find(FindingKind.CONTENT, f"the body of version {event.version} is missing: it was redacted")
            return
        body = contents[event.content_index]
    if len(body) != event.content_size or hashlib.sha256(body).digest() != event.content_hash:
        found.find(FindingKind.CONTENT, f"the body of version {event.version} is not the one its hash names")


def _expect(found: Invariants, expected: list[_ExpectedEnd], sequence: int, chain: Hash) -> None:
    for each in list(expected):
        if sequence >= each.sequence:
            expected.remove(each)
            if sequence != each.sequence or chain != each.hash:
                found.find(
                    FindingKind.DIVERGED,
                    f"at sequence {each.sequence} this log is not the one that {each.said_by} knows",
                    each.sequence,
                )


def _expectations(source: Source, options: VerifyOptions) -> list[_ExpectedEnd]:
    expected: list[_ExpectedEnd] = []
    if options.anchor is not None:
        archive = ArchiveLog(options.anchor)
        anchor = archive.anchor
        archive.close()
        if anchor.log_id != source.store.log_id or anchor.workspace != source.workspace:
            raise UsageError(f"{options.anchor} is an archive of another log or workspace")
        expected.append(_ExpectedEnd(SequenceNumber(anchor.sequence), anchor.hash, f"the archive {options.anchor}"))
    if options.expect_end is not None:
        expected.append(_parse_expected(options.expect_end))
    if isinstance(source.store, ArchiveLog):
        own = source.store.anchor
        expected.append(_ExpectedEnd(SequenceNumber(own.sequence), own.hash, "its own footer"))
    return expected


def _parse_expected(text: str) -> _ExpectedEnd:
    sequence, colon, chain = text.partition(":")
    if colon:
        try:
            return _ExpectedEnd(SequenceNumber(int(sequence)), Hash(bytes.fromhex(chain)), "--expect-end")
        except ValueError as error:
            raise UsageError(f"--expect-end is a position token or SEQUENCE:HASH, got {text!r}") from error
    position = Position.parse(text)
    return _ExpectedEnd(position.sequence, position.hash, "--expect-end")

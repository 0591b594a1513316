"""`verify`: does the log hold together.

Guarantees: one pass, memory bounded by the state; everything `projections.invariants` promises, the hash chain, the
head, the hashes of bodies, and, against an anchor, the tail. Does not: find a forger who recomputes the chain, and does
not check deliveries, which this release does not record.
"""

import dataclasses
import hashlib
from pathlib import Path

import click

from ccs_stream.log.archive import ArchiveLog
from ccs_stream.log.port import Position
from ccs_stream.log.reader import Entry, ShardReader, record_is_missing
from ccs_stream.projections.invariants import Invariants, Kind
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import ContentMissing, CorruptRecord, LogDiverged, MissingHead, UsageError
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import Hash
from ccs_stream.protocol.ids import Sequence as SequenceNumber
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.replay.output import console, print_json, progress, table
from ccs_stream.replay.source import Source

EXIT_CLEAN = 0
EXIT_FINDINGS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What to check besides the log itself."""

    anchor: Path | None = None
    expect_end: str | None = None
    bodies: bool = True
    allow_loss: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Expected:
    """A sequence that must be in the log, as the last one of a decision with this hash."""

    sequence: SequenceNumber
    hash: Hash
    said_by: str


def run(source: Source, wanted: Wanted, *, as_json: bool) -> int:
    """Print the findings; returns the exit code."""
    found, records = check(source, wanted)
    code = EXIT_FINDINGS if found.violations or (found.losses and not wanted.allow_loss) else EXIT_CLEAN
    counts = {kind.value: count for kind, count in sorted(found.counts.items())}
    examples = [
        {"kind": each.kind.value, "severity": each.kind.severity, "sequence": each.sequence, "detail": each.detail}
        for kind in sorted(found.examples)
        for each in found.examples[kind]
    ]
    if as_json:
        print_json(
            {
                "source": source.store.display_url,
                "workspace": source.workspace,
                "records": records,
                "events": found.events,
                "violations": found.violations,
                "losses": found.losses,
                "bodies_checked": wanted.bodies,
                "deliveries_checked": False,
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
            click.echo(f"{count:>8}  {kind}")
    bodies = "bodies checked" if wanted.bodies else "bodies not checked"
    verdict = "clean" if code == EXIT_CLEAN else "FINDINGS"
    click.echo(
        f"{verdict}: {records} records, {found.events} events, {found.violations} violations, {found.losses} lost "
        f"updates ({bodies}; deliveries are not recorded by this release)"
    )
    return code


def check(source: Source, wanted: Wanted) -> tuple[Invariants, int]:
    """All findings, and how many records were read."""
    expected = _expectations(source, wanted)
    found, records = Invariants(), 0
    reader = source.reader()
    total = source.store.end(source.workspace) + 1
    try:
        for entry in progress(reader.read(bodies=wanted.bodies), total):
            records += 1
            _entry(source, found, reader, entry, bodies=wanted.bodies)
            if expected and isinstance(entry.record, DecisionRecord) and entry.verdict is Verdict.ADMITTED:
                _expect(found, expected, reader.cursor.end(source.workspace).sequence, entry.hash)
    except MissingHead as error:
        found.find(Kind.MISSING_HEAD, str(error))
    except CorruptRecord as error:
        found.find(Kind.CORRUPT_RECORD, str(error))
    except LogDiverged as error:
        found.find(Kind.HASH_CHAIN, str(error))
    else:
        for each in expected:
            end = reader.cursor.end(source.workspace).sequence
            detail = f"the log ends at sequence {end}, {each.said_by} knows of {each.sequence}: its tail is missing"
            found.find(Kind.CUT_TAIL, detail)
    return found, records


def _entry(source: Source, found: Invariants, reader: ShardReader, entry: Entry, *, bodies: bool) -> None:
    record = entry.record
    if entry.verdict is not Verdict.ADMITTED:
        if record_is_missing(reader.cursor, record):
            found.find(Kind.VOID_RECORD, f"record at offset {entry.offset} does not continue the log: {entry.verdict}")
        return
    if not isinstance(record, DecisionRecord):
        return
    found.decision(record, entry.events)
    if bodies:
        for event in entry.events:
            if type(event) is WriteCommitted:
                _body(source, found, entry, event)


def _body(source: Source, found: Invariants, entry: Entry, event: WriteCommitted) -> None:
    if event.content_locator is not None:
        try:
            body = source.store.get_content(event.content_locator)
        except ContentMissing as error:
            found.find(Kind.CONTENT, str(error))
            return
    else:
        contents = entry.stored.contents
        if event.content_index is None or event.content_index >= len(contents):
            found.find(Kind.CONTENT, f"the body of version {event.version} is missing: it was redacted")
            return
        body = contents[event.content_index]
    if len(body) != event.content_size or hashlib.sha256(body).digest() != event.content_hash:
        found.find(Kind.CONTENT, f"the body of version {event.version} is not the one its hash names")


def _expect(found: Invariants, expected: list[_Expected], sequence: int, chain: Hash) -> None:
    for each in list(expected):
        if sequence >= each.sequence:
            expected.remove(each)
            if sequence != each.sequence or chain != each.hash:
                found.find(
                    Kind.DIVERGED,
                    f"at sequence {each.sequence} this log is not the one that {each.said_by} knows",
                    each.sequence,
                )


def _expectations(source: Source, wanted: Wanted) -> list[_Expected]:
    expected: list[_Expected] = []
    if wanted.anchor is not None:
        archive = ArchiveLog(wanted.anchor)
        anchor = archive.anchor
        archive.close()
        if anchor.log_id != source.store.log_id or anchor.workspace != source.workspace:
            raise UsageError(f"{wanted.anchor} is an archive of another log or workspace")
        expected.append(_Expected(SequenceNumber(anchor.sequence), anchor.hash, f"the archive {wanted.anchor}"))
    if wanted.expect_end is not None:
        expected.append(_parse_expected(wanted.expect_end))
    if isinstance(source.store, ArchiveLog):
        own = source.store.anchor
        expected.append(_Expected(SequenceNumber(own.sequence), own.hash, "its own footer"))
    return expected


def _parse_expected(text: str) -> _Expected:
    sequence, colon, chain = text.partition(":")
    if colon:
        try:
            return _Expected(SequenceNumber(int(sequence)), Hash(bytes.fromhex(chain)), "--expect-end")
        except ValueError as error:
            raise UsageError(f"--expect-end is a position token or SEQUENCE:HASH, got {text!r}") from error
    position = Position.parse(text)
    return _Expected(position.sequence, position.hash, "--expect-end")

"""`ccs-stream validate`: check that a file of JSON lines, or a log, is complete.

Guarantees: a finding names its line; nothing is written; exit codes are those of `replay.exit_codes`; with --json,
stdout is one JSON document. Does not: compare a file with the log it was made from; `ccs-replay SOURCE transitions`
prints the state log anew.
"""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any, Final

import click

from ccs_stream.client.observers.json_lines import ends_path, lines_and_ends
from ccs_stream.projections.stream_checks import StreamChecks
from ccs_stream.protocol.errors import LogDiverged, MissingHead, UsageError
from ccs_stream.replay import verify
from ccs_stream.replay.exit_codes import EXIT_CLEAN, EXIT_FINDINGS, reports_errors
from ccs_stream.replay.output import console, print_json, say, table
from ccs_stream.replay.source import Source

_MAGIC: Final = {b"SQLite format 3\0": "sqlite:///", b"Obj\x01": "file:"}
"""The first bytes of logs that are files, and the scheme of the URL that opens each."""

EPILOG = """
\b
Exit codes: 0 complete, 1 error (such as no file), 2 wrong usage, 3 findings.

\b
Examples:
  ccs-stream validate states.jsonl
  ccs-stream validate states.jsonl --json | jq .findings
  ccs-stream validate sqlite:///team.db
  ccs-stream validate 'kafka://localhost:9092?workspace=release-42'
"""


@click.command(epilog=EPILOG, short_help="Check that a file of JSON lines, or a log, is complete.")
@click.argument("source", metavar="PATH|URL")
@click.option("-w", "--workspace", metavar="NAME", help="Workspace to check, if a URL's log holds several.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@reports_errors()
def validate(*, source: str, workspace: str | None, as_json: bool) -> None:
    """Check that nothing is missing from a file of JSON lines, or from a log.

    PATH is a file that a store has written: its state log, its content audit, its metric events, or several of them in
    one file. In each line, schema_version says what the line is, instance_id which store wrote it, and sequence_number
    its place. A finding is a number that is missing or there twice, a stream that does not begin at 1, a line that is
    not JSON, or a line that does not fit its schema (unknown schema_version, a key too many or too few, a wrong type).

    Lines missing at the end can only be found with the file PATH.end, which the store keeps beside PATH: move and copy
    the two together. Without it the output says that the end cannot be checked.

    \b
    URL is a log, opened read-only and checked as `ccs-replay URL verify` does:
      sqlite:///FILE.db
      file:ARCHIVE.avro
      kafka://HOST:PORT?workspace=W
    """  # noqa: D301  # click reads the escapes
    if workspace is not None and not is_url(source):
        raise click.UsageError("--workspace chooses among those of a log: leave it out for a file of lines")
    if is_url(source):
        sys.exit(validate_log(source, workspace, as_json=as_json))
    sys.exit(validate_file(Path(source), as_json=as_json))


def is_url(source: str) -> bool:
    """True if `source` names a log and not a file of lines."""
    return "://" in source or source.startswith(("file:", "memory:"))


def validate_log(url: str, workspace: str | None, *, as_json: bool) -> int:
    """Check a log and print what was found; returns the exit code. Raises `LogError`s, `UsageError`."""
    try:
        source = Source.open(url, workspace)
    except (LogDiverged, MissingHead) as error:
        if not url.startswith("kafka:"):
            raise
        return verify.report_unreadable(url.partition("?")[0], workspace, error, as_json=as_json)
    with contextlib.closing(source.store):
        return verify.run(source, verify.VerifyOptions(), as_json=as_json)


def validate_file(path: Path, *, as_json: bool) -> int:
    """Check a file of lines and print what was found; returns the exit code. Raises `OSError`, `UsageError`."""
    checks = StreamChecks()
    with lines_and_ends(path) as (lines, ends):
        for number, text in enumerate(lines, start=1):
            if number == 1:
                _check_is_no_log(path, text)
            checks.line(number, text)
    if ends is not None:
        checks.tail(ends)
    report = _FileReport(path, checks, ends)
    if as_json:
        print_json(report.document())
    else:
        report.show()
    return report.exit_code


def _check_is_no_log(path: Path, text: bytes) -> None:
    for magic, scheme in _MAGIC.items():
        if text.startswith(magic):
            raise UsageError(f"{path} is a log, not a file of lines: ccs-stream validate {scheme}{path}")


@dataclasses.dataclass(frozen=True, slots=True)
class _FileReport:
    path: Path
    checks: StreamChecks
    ends: Any
    """None if the file of ends is missing or cannot be understood."""

    @property
    def exit_code(self) -> int:
        return EXIT_FINDINGS if self.checks.counts else EXIT_CLEAN

    @property
    def unended(self) -> list[tuple[str, str]]:
        """Streams that the file of ends does not name."""
        return [
            (stream, instance_id)
            for stream, instance_id in sorted(self.checks.seen)
            if self.ends is None or stream not in self.ends.get(instance_id, {})
        ]

    @property
    def tail(self) -> str:
        """One sentence on whether the end of the file could be checked."""
        beside = ends_path(self.path)
        if self.ends is None:
            why = "cannot be understood" if beside.exists() else "is missing"
            return f"tail not checkable: {beside} {why}"
        if self.unended:
            names = ", ".join(f"{stream} of {instance_id}" for stream, instance_id in self.unended)
            return f"tail not checkable: {beside} does not name {names}"
        return "tail checked"

    def document(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "source": str(self.path),
            "lines": self.checks.lines,
            "streams": [
                {
                    "stream": stream,
                    "instance_id": instance_id,
                    "lines": seen.lines,
                    "first": seen.first,
                    "last": seen.last,
                    "tail_checked": (stream, instance_id) not in self.unended,
                }
                for (stream, instance_id), seen in sorted(self.checks.seen.items())
            ],
            "tail": self.tail,
            "counts": {kind.value: count for kind, count in sorted(self.checks.counts.items())},
            "findings": [
                {**dataclasses.asdict(each), "kind": each.kind.value}
                for kind in sorted(self.checks.examples)
                for each in self.checks.examples[kind]
            ],
            "exit_code": self.exit_code,
        }

    def show(self) -> None:
        """Print the report for people."""
        checks = self.checks
        examples = [each for kind in sorted(checks.examples) for each in checks.examples[kind]]
        if examples:
            rows = [(each.kind, each.line, each.stream, each.instance_id, each.detail) for each in examples]
            console().print(table("", ("finding", "line", "stream", "instance", "detail"), rows))
            for kind, count in sorted(checks.counts.items()):
                say(f"{count:>8}  {kind}")
        verdict = "FINDINGS" if checks.counts else "clean"
        lines = "line" if checks.lines == 1 else "lines"
        streams = "stream" if len(checks.seen) == 1 else "streams"
        say(f"{verdict}: {checks.lines:,} {lines} of {len(checks.seen)} {streams}; {self.tail}")

"""What the demo found, as data: the one object that both the story and `--json` show.

Guarantees: every value is measured from the run or read from its log; `checks` says what had to hold and whether it
did. Does not: format anything.
"""

import dataclasses

from ccs_stream.cli.demo.source_checks import ReviewFinding
from ccs_stream.cli.demo.sources import SkippedFile
from ccs_stream.cli.demo.tokens import ReadCost


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Something that must hold."""

    what: str
    held: bool
    measured: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReviewerResult:
    """What one reviewer found, in the first round and in the last."""

    agent: str
    at_first: int
    at_last: int
    summary: str
    """The model's words."""
    findings: list[ReviewFinding]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What the graph did."""

    path: str
    files: int
    lines: int
    left_out: list[SkippedFile]
    rounds: int
    reviewers: list[ReviewerResult]
    fixed: list[str]
    report: str
    merged: int
    """Writes to the shared board that were refused, because another reviewer was faster, and merged."""
    readings: list[ReadCost]
    tokens: int
    tokens_rereading: int
    saved_percent: float
    """How much of that did not have to move."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnseenOverwrite:
    """One write over versions that its author had not seen."""

    version: int
    by: str
    had_read: int | None
    unseen: list[str]
    """What was replaced unseen: version and author, oldest first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """Two processes that add entries to one list."""

    guarded: bool
    acknowledged: int
    kept: int
    lost: list[str]
    """Entries whose author was told they are written, and that are not in the last version."""
    refused: int
    overwrites: list[UnseenOverwrite]
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoppedHolder:
    """A process stopped past the limit of its reservation."""

    limit_s: float
    stopped_s: float
    waited_s: float
    """How long the other waited for the reservation to run out."""
    fence: int
    fence_after: int
    late_write: str
    """Why it was refused; empty if it was accepted."""
    detail: str
    versions: list[str]
    """Who wrote each version, oldest first."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KilledWriters:
    """Writers killed with SIGKILL."""

    kills: int
    in_flight: int
    """Writes that were asked for and not acknowledged when the kill came."""
    in_flight_kept: int
    """Those of them that are on the log, whole."""
    acknowledged: int
    missing: int
    """Acknowledged writes that are not on the log where their author was told."""
    halves: int
    """Writes of two values of which only one is on the log."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RebuiltState:
    """The state folded from the first record by a process that knew nothing."""

    live_hash: str
    rebuilt_hash: str
    sequence: int
    records: int
    gap_free: bool
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemoLog:
    """Where it is all kept."""

    url: str
    workspace: str
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCommand:
    """A command to try on the log."""

    command: str
    shows: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Everything."""

    version: str
    log: DemoLog
    review: Review
    unguarded: RaceResult
    guarded: RaceResult
    stopped: StoppedHolder
    killed: KilledWriters
    rebuilt: RebuiltState
    violations: int
    """Invariants that the log breaks."""
    lost_updates: int
    """Writes over unseen versions that the log records, in the whole of it."""
    checks: list[Expectation]
    held: bool
    seconds: float
    replay: list[ReplayCommand]

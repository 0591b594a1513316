"""The result of the demo, as data: the one object that both the story and `--json` show.

Guarantees: every value is measured in the run or read from its log; `checks` says what had to hold and whether it did.
Does not: format anything.
"""

import dataclasses

from ccs_stream.cli.demo.source_checks import ReviewFinding
from ccs_stream.cli.demo.sources import SkippedFile
from ccs_stream.cli.demo.tokens import ReadCost


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Something that must hold, and what was measured."""

    what: str
    held: bool
    measured: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReviewerResult:
    """The findings of one reviewer, in the first round and in the last."""

    agent: str
    at_first: int
    at_last: int
    summary: str
    """The answer of the model."""
    findings: list[ReviewFinding]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The result of the graph."""

    path: str
    files: int
    lines: int
    left_out: list[SkippedFile]
    rounds: int
    reviewers: list[ReviewerResult]
    fixed: list[str]
    report: str
    merged: int
    """Writes to the shared board that were refused because another reviewer was faster, and then merged."""
    readings: list[ReadCost]
    tokens: int
    tokens_rereading: int
    saved_percent: float
    """Percentage of `tokens_rereading` that did not have to move."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnseenOverwrite:
    """One write over versions that its author had not read."""

    version: int
    by: str
    had_read: int | None
    unseen: list[str]
    """The replaced versions and their authors, oldest first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """The race of two processes that add entries to one list."""

    guarded: bool
    acknowledged: int
    kept: int
    lost: list[str]
    """Entries whose write was acknowledged, and that are not in the last version."""
    refused: int
    overwrites: list[UnseenOverwrite]
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoppedHolder:
    """The process that was stopped beyond the limit of its reservation."""

    limit_s: float
    stopped_s: float
    waited_s: float
    """How long the other process waited for the reservation to run out."""
    fence: int
    fence_after: int
    late_write: str
    """Why the late write was refused; empty if it was accepted."""
    detail: str
    versions: list[str]
    """The author of each version, oldest first."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KilledWriters:
    """The writers that were killed with SIGKILL."""

    kills: int
    in_flight: int
    """Writes that had been sent and not acknowledged when the kill came."""
    in_flight_kept: int
    """Those of them that are in the log, whole."""
    acknowledged: int
    missing: int
    """Acknowledged writes that are not in the log at the place that was acknowledged."""
    halves: int
    """Writes of two values of which only one is in the log."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RebuiltState:
    """The state that another process folded from the first record."""

    live_hash: str
    rebuilt_hash: str
    sequence: int
    records: int
    gap_free: bool
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemoLog:
    """The log of the demo."""

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
    """The whole result."""

    version: str
    log: DemoLog
    review: Review
    unguarded: RaceResult
    guarded: RaceResult
    stopped: StoppedHolder
    killed: KilledWriters
    rebuilt: RebuiltState
    violations: int
    """Rules that the log breaks."""
    lost_updates: int
    """All writes in the log over versions that their author had not read."""
    checks: list[Expectation]
    held: bool
    seconds: float
    replay: list[ReplayCommand]

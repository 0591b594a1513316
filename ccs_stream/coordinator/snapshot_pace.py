"""How often a coordinator keeps a snapshot of what it has folded.

Guarantees: the next process to open a log folds at most about a second's worth of decisions, and writing snapshots
costs a small part of folding.
"""

from typing import Final

SNAPSHOT_EVERY: Final = 50_000
"""Decisions between snapshots: half a second to a second of folding for the next process that opens the log."""
_DECISIONS_PER_ARTIFACT: Final = 4
"""A snapshot costs as much as folding about one decision for each artifact; four times as many pass between two."""


def decisions_between_snapshots(artifacts: int, every: int = SNAPSHOT_EVERY) -> int:
    """After how many decisions the next snapshot of a state with so many artifacts is due."""
    return max(every, _DECISIONS_PER_ARTIFACT * artifacts)

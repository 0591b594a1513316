"""Warnings of lost updates, for adapters whose frameworks write without a condition.

Guarantees: each artifact is warned of once, and the warning names the caller's own line. Does not: refuse anything.
"""

from typing import Final

from ccs_stream.client.caller_warning import warn_caller
from ccs_stream.client.operations.changes import WriteBatch
from ccs_stream.client.results import Written
from ccs_stream.protocol.commands import Write
from ccs_stream.protocol.ids import ArtifactId

WARNED_MAX: Final = 100_000
"""Artifacts remembered as warned of; beyond this the oldest may be warned of again."""


class LostUpdateWarning(UserWarning):
    """A write replaced a version that its author had not read: somebody's work may be lost. It is on the log."""


class LostUpdateWarnings:
    """Warns of the lost updates of one store."""

    def __init__(self, remedy: str) -> None:
        """`remedy` tells how such writes can be refused, as the end of the warning."""
        self._remedy = remedy
        self._warned: dict[ArtifactId, None] = {}

    def check(self, batch: WriteBatch, written: list[Written]) -> None:
        """Warn where a write replaced a version that its author had not read."""
        for change, result in zip(batch.changes, written, strict=True):
            if result.overwrote_unseen and type(change) is Write and change.artifact not in self._warned:
                self._warn(batch.agent, change, result)

    def _warn(self, agent: str, change: Write, written: Written) -> None:
        if len(self._warned) >= WARNED_MAX:
            del self._warned[next(iter(self._warned))]
        self._warned[change.artifact] = None
        read = "never read it" if written.base_version is None else f"had read version {written.base_version}"
        replaced = (written.version or 1) - 1
        warn_caller(
            f"{agent!r} replaced version {replaced} of {change.key!r} in {change.scope!r}, and {read}: what that "
            f"version said may be lost. It is on the log; {self._remedy}. (Said once for each artifact.)",
            LostUpdateWarning,
        )

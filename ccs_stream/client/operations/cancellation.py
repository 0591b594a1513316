"""The meaning of a cancelled call: its command may still be decided, and what came of it is recorded all the same.

`steps.run_async` and the writer hand a `Settlement` to the coordinator with each command whose outcome counts.

Guarantees: a cancelled write that is decided is recorded as if it had been awaited (its version in the read set, its
body, its delivery), and the next write of its flow waits for that. Does not: cancel a command.

How: the event loop's thread begins a settlement when the coroutine is cancelled; the thread that learns of the outcome
(a worker, a follower of the log, or the event loop's own) ends it. It waits for nothing.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.pending_command import Settle
from ccs_stream.protocol.ids import ArtifactId

LOG = logging.getLogger(__name__)

UNSETTLED_WAIT_S: Final = 30.0
"""How long a write waits for the outcome of a cancelled write of its flow: as long as a turn of the log may take."""


class Settlement:
    """What becomes of one command whose coroutine is cancelled. Called when it is; never called where it is not."""

    __slots__ = ("_artifacts", "_read_set", "_resume", "begun")

    def __init__(
        self,
        resume: Callable[[Answer | None, BaseException | None], object],
        read_set: ReadSet | None,
        artifacts: Sequence[ArtifactId],
    ) -> None:
        """`resume` is called with the outcome. `artifacts` are those that the command writes for `read_set`."""
        self._resume = resume
        self._read_set = read_set
        self._artifacts = artifacts
        self.begun = False
        """True once the coroutine was cancelled."""

    def __call__(self) -> Settle:
        self.begun = True
        if self._read_set is not None:
            self._read_set.unsettled.extend(self._artifacts)
        return self._end

    def _end(self, answer: Answer | None, error: BaseException | None) -> None:
        read_set = self._read_set
        known = {} if read_set is None else {each: read_set.versions.get(each) for each in self._artifacts}
        try:
            self._resume(answer, error)
        except Exception as raised:  # noqa: BLE001  # nobody waits for it; the log has the decision
            LOG.debug("a cancelled call ended with %s: %s", type(raised).__name__, raised)
        finally:
            if read_set is not None:
                for artifact, version in known.items():
                    if version is not None and version > read_set.versions.get(artifact, version):
                        read_set.record(artifact, version)  # read meanwhile, and newer
                for artifact in self._artifacts:
                    read_set.unsettled.remove(artifact)

"""Which process a session runs in: what a program says about itself when it joins.

The client fills a `ProcessIdentity` and sends it with `Join`; `ParticipantJoined` carries it, the directory keeps it
for each live session, and tools show it.

Guarantees: evidence, not state: no decision depends on it, and the state hash does not cover it. Its limits are checked
here, for the client and for `decide`. Does not: find anything out; the client asks the operating system.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, Self

from ccs_stream.protocol.limits import PID_MAX, PROCESS_TEXT_BYTES_MAX, check_labels, check_text, check_whole_number


class HasIdentity(Protocol):
    """A command or an event that carries an identity."""

    host: str | None
    pid: int | None
    program: str | None
    release: str | None
    labels: dict[str, str] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """What is known of a process; None for what it does not say."""

    host: str | None = None
    """Name of the host."""
    pid: int | None = None
    """Number of the process on its host."""
    program: str | None = None
    """What was started, such as the path of a script or the name of a module."""
    release: str | None = None
    """Release of ccs-stream."""
    labels: Mapping[str, str] | None = None
    """Further facts, as the program gave them."""

    @classmethod
    def of(cls, said: HasIdentity) -> Self | None:
        """The identity that a command or an event carries; None where it says nothing."""
        found = cls(host=said.host, pid=said.pid, program=said.program, release=said.release, labels=said.labels)
        return None if found == cls() else found

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self | None:
        """The same from a mapping that has the members among others, such as a record of a snapshot."""
        found = cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls)})
        return None if found == cls() else found

    def members(self) -> dict[str, Any]:
        """The members, as arguments of `Join`."""
        labels = None if self.labels is None else dict(self.labels)
        return {
            "host": self.host,
            "pid": self.pid,
            "program": self.program,
            "release": self.release,
            "labels": labels,
        }

    def check(self) -> Self:
        """The identity itself, if the log takes it. Raises `UsageError`."""
        for name in ("host", "program", "release"):
            text = getattr(self, name)
            if text is not None:
                check_text(text, f"the {name} of a process", PROCESS_TEXT_BYTES_MAX)
        if self.pid is not None:
            check_whole_number(self.pid, "the pid of a process", most=PID_MAX)
        if self.labels is not None:
            check_labels(self.labels)
        return self

"""The MESI states of a grant, and the one table of what each event does to them.

Guarantees: `TRANSITIONS` is the table of the documentation, and the fold is tested against it cell by cell.
Source: Papamarcos and Patel, "A low-overhead coherence solution for multiprocessors with private cache memories"
(ISCA 1984), which defines the four states; here a cache is what a participant has read.
"""

import enum
from typing import Final


class GrantState(enum.StrEnum):
    """The state that the directory records for an artifact and a participant."""

    MODIFIED = "M"
    """It wrote the current version, and no other participant has read that since."""
    EXCLUSIVE = "E"
    """It read the current version, and no other participant holds a copy."""
    SHARED = "S"
    """It holds the current version, as others may."""
    INVALID = "I"
    """It holds nothing: never read, overwritten, deleted, reclaimed or left."""


class GrantAct(enum.StrEnum):
    """The things that can happen to a grant."""

    OWN_READ = "own read"
    OWN_WRITE = "own write"
    OWN_DELETE = "own delete"
    OTHER_READ = "another reads"
    OTHER_WRITE = "another writes"
    OTHER_DELETE = "another deletes"
    RECLAIMED = "reclaimed"
    SESSION_END = "session ends"


_M, _E, _S, _I = GrantState.MODIFIED, GrantState.EXCLUSIVE, GrantState.SHARED, GrantState.INVALID

TRANSITIONS: Final[dict[GrantAct, dict[GrantState, tuple[GrantState, ...]]]] = {
    # act                 from M     from E     from S     from I (S if another holds a copy, else E)
    GrantAct.OWN_READ: {       _M: (_M,), _E: (_E,), _S: (_S,), _I: (_S, _E)},
    GrantAct.OWN_WRITE: {      _M: (_M,), _E: (_M,), _S: (_M,), _I: (_M,)},
    GrantAct.OWN_DELETE: {     _M: (_I,), _E: (_I,), _S: (_I,), _I: (_I,)},
    GrantAct.OTHER_READ: {     _M: (_S,), _E: (_S,), _S: (_S,), _I: (_I,)},
    GrantAct.OTHER_WRITE: {    _M: (_I,), _E: (_I,), _S: (_I,), _I: (_I,)},
    GrantAct.OTHER_DELETE: {   _M: (_I,), _E: (_I,), _S: (_I,), _I: (_I,)},
    GrantAct.RECLAIMED: {      _M: (_I,), _E: (_I,), _S: (_S,), _I: (_I,)},
    GrantAct.SESSION_END: {    _M: (_I,), _E: (_I,), _S: (_I,), _I: (_I,)},
}  # fmt: skip
"""For each act and state, the states that may follow."""

"""One set of clients for all workspaces that a process opens on one log.

Guarantees: whoever asks for a log with settings that are open already in this process, but for the workspace they name,
is given the same clients; each closes what it was given, and the last one closes the clients. Does not: share across a
fork, or a log that was found to be another one than was opened.
"""

import functools
import threading
from typing import Final

from ccs_stream.background import when_forked
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog

_OPEN: Final[list[KafkaLog]] = []
_LOCK: Final = [threading.Lock()]


def shared_log(settings: KafkaSettings) -> KafkaLog:
    """The log with these settings, opened unless it is open. Raises what opening it raises."""
    found = _found(settings)
    if found is not None:
        return found
    opened = KafkaLog(settings)
    opened.on_close(functools.partial(retire, opened))
    with _LOCK[0]:
        _OPEN.append(opened)
    return opened


def retire(log: KafkaLog) -> None:
    """Whoever opens this log from now on opens it anew: what this process knows of it may not hold any more."""
    with _LOCK[0]:
        _OPEN[:] = [each for each in _OPEN if each.clients is not log.clients]


def _found(settings: KafkaSettings) -> KafkaLog | None:
    wanted = _common(settings)
    with _LOCK[0]:
        same = next((each for each in _OPEN if _common(each.settings) == wanted), None)
    return None if same is None else same.share(settings)


def _common(settings: KafkaSettings) -> KafkaSettings:
    return settings.model_copy(update={"workspace": None})


def _begin_anew() -> None:
    """In a forked child, where the clients are of no use and the lock may be held by nobody."""
    _OPEN.clear()
    _LOCK[0] = threading.Lock()


when_forked(_begin_anew)

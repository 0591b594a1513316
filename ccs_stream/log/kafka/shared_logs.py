"""The Kafka logs that this process has open, so that all workspaces on one log share one set of clients.

`open_log(..., shared=True)` uses it, for the client's workspaces.

Guarantees: a log that is opened with settings that are open already, apart from the workspace, gets the same clients;
each `KafkaLog` is closed by itself, and the last one closes the clients. Does not: share across a fork, or share a log
that turned out to be another one than was opened.
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
    """The log with these settings; opened if this process has not opened it. Raises what opening it raises."""
    found = _found(settings)
    if found is not None:
        return found
    opened = KafkaLog(settings)
    opened.on_close(functools.partial(retire, opened))
    with _LOCK[0]:
        _OPEN.append(opened)
    return opened


def retire(log: KafkaLog) -> None:
    """Share this log no more: the next one who opens it gets new clients, because this one may have changed."""
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
    """Forget everything in a forked child: clients do not survive a fork, and the lock may be held for ever."""
    _OPEN.clear()
    _LOCK[0] = threading.Lock()


when_forked(_begin_anew)

"""The identity of this process, which the log records when an agent joins: host, number, program, release, labels.

Guarantees: every text is one that the log can hold; what is too long is cut. Does not: prove anything. Whoever may
write to the log may claim any host, like any agent's name.
"""

import os
import socket
import sys
from typing import Any

from ccs_stream.protocol.limits import PROCESS_TEXT_BYTES_MAX, check_flag, check_labels, storable
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.release import __version__


def identify_process(*, labels: Any = None, identify_host: Any = True) -> ProcessIdentity:
    """The identity of this process. Raises `UsageError` for labels that the log cannot hold.

    `labels` maps texts to texts, such as `{"run": "2026-11-28"}`. Without `identify_host`, host, number and program are
    left out.
    """
    check_flag(identify_host, "identify_host")
    if labels is not None:
        check_labels(labels)
    return ProcessIdentity(
        host=_storable(socket.gethostname()) if identify_host else None,
        pid=os.getpid() if identify_host else None,
        program=_storable(_program()) if identify_host else None,
        release=__version__,
        labels=dict(labels) if labels else None,
    ).check()


def _program() -> str:
    """The module that was started with `-m`, else the path of the script; `python` for an interactive interpreter."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name.removesuffix(".__main__"))
    return (sys.argv[0] if sys.argv else "") or "python"


def _storable(text: str) -> str:
    """The text as UTF-8 can hold it, at most `PROCESS_TEXT_BYTES_MAX` bytes of it."""
    return storable(text, PROCESS_TEXT_BYTES_MAX)

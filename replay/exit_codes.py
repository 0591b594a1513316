"""Exit codes of the commands, and the one way in which they report an error.

`ccs-replay` and every command of `ccs-stream` run inside `reports_errors`.

Guarantees: an expected error is one line on stderr that begins with `error: `, without a traceback; its exit code says
whether the call was wrong or something failed. Does not: catch bugs, which keep their traceback.
"""

import contextlib
from collections.abc import Iterator
from typing import Final, NoReturn

from ccs_stream.protocol.errors import CcsError, UsageError
from ccs_stream.replay.output import say

EXIT_CLEAN: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_FINDINGS: Final = 3
"""The log or file was read, and something is wrong with it."""
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


@contextlib.contextmanager
def reports_errors() -> Iterator[None]:
    """Print an expected error as one line and end the process. Works as a decorator too: `@reports_errors()`."""
    try:
        yield
    except UsageError as error:
        _end(str(error), EXIT_USAGE)
    except FileNotFoundError as error:
        _end(f"there is no file {error.filename}: check the path", EXIT_ERROR)
    except (CcsError, OSError) as error:
        _end(str(error), EXIT_ERROR)


def _end(message: str, code: int) -> NoReturn:
    say(f"error: {message}", err=True)
    raise SystemExit(code)

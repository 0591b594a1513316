"""The `ccs-replay` command: timelines, past states, verification and export of any log.

Guarantees: it never writes to its source; exit codes are 0 clean, 1 error, 2 usage, 3 findings, 130 interrupted. Does
not: need a coordinator, a client or an agent framework.

May import: `projections`, `log` and what these may import.
"""

from ccs_stream.replay.app import main

__all__ = ["main"]

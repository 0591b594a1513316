"""Cache coherence for LLM agents that share artifacts, over one ordered, durable log of facts.

Guarantees: importing the package is cheap and needs no agent framework and no broker; `connect` and the errors a user
meets are found here, and loaded when first asked for.
Does not: re-export the rooms; import what else you need from `ccs_stream.client`, `ccs_stream.adapters` and so on.
The rooms, what each may import, and the check that enforces it are described in CONTRIBUTING.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ccs_stream.release import __version__ as __version__

if TYPE_CHECKING:
    from ccs_stream.client.connect import connect as connect
    from ccs_stream.client.degraded.mode import CoherenceDegradedWarning as CoherenceDegradedWarning
    from ccs_stream.client.recovery import CrashRecoveryConfig as CrashRecoveryConfig
    from ccs_stream.client.workspace import Delete as Delete
    from ccs_stream.client.workspace import Put as Put
    from ccs_stream.client.workspace import Workspace as Workspace
    from ccs_stream.protocol.errors import CcsError as CcsError
    from ccs_stream.protocol.errors import Fenced as Fenced
    from ccs_stream.protocol.errors import LogError as LogError
    from ccs_stream.protocol.errors import OutcomeUnknown as OutcomeUnknown
    from ccs_stream.protocol.errors import Reclaimed as Reclaimed
    from ccs_stream.protocol.errors import Refused as Refused
    from ccs_stream.protocol.errors import Reserved as Reserved
    from ccs_stream.protocol.errors import UsageError as UsageError
    from ccs_stream.protocol.errors import VersionConflict as VersionConflict
    from ccs_stream.protocol.settings import WorkspaceSettings as WorkspaceSettings


_HOMES = {
    "connect": "ccs_stream.client.connect",
    "CoherenceDegradedWarning": "ccs_stream.client.degraded.mode",
    "CrashRecoveryConfig": "ccs_stream.client.recovery",
    "Delete": "ccs_stream.client.workspace",
    "Put": "ccs_stream.client.workspace",
    "Workspace": "ccs_stream.client.workspace",
    "WorkspaceSettings": "ccs_stream.protocol.settings",
    **dict.fromkeys(
        ("CcsError", "Fenced", "LogError", "OutcomeUnknown", "Reclaimed", "Refused", "Reserved", "UsageError"),
        "ccs_stream.protocol.errors",
    ),
    "VersionConflict": "ccs_stream.protocol.errors",
}

__all__ = [*_HOMES]  # noqa: PLE0604  # the names above, loaded when asked for


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]

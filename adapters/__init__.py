"""Adapters: one module or package per agent framework, and the telemetry exporters.

Guarantees: each adapter imports only its own framework, and only when it is asked for, so that installing one extra is
enough to use one adapter.
Does not: decide anything about coherence; the client and the log do.
May import: `client` and what it may import, and the framework it adapts.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccs_stream.adapters.langgraph import CCSStore as CCSStore
    from ccs_stream.adapters.langgraph import CoherentStore as CoherentStore

_HOMES = {"CCSStore": "ccs_stream.adapters.langgraph", "CoherentStore": "ccs_stream.adapters.langgraph"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)

"""Exporters of telemetry: a store's reads and writes, for OpenTelemetry and LangSmith.

Guarantees: an SDK is imported when an exporter for it is asked for, and not before. Does not: configure an SDK; where
the numbers go is configured in the SDK.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ccs_stream.client.observers.telemetry import (
    Exporter,
    Telemetry,
    TelemetryExporter,
    UnknownTelemetry,
    exporter_of,
)

if TYPE_CHECKING:
    from ccs_stream.adapters.telemetry.langsmith import LangSmithExporter
    from ccs_stream.adapters.telemetry.opentelemetry import OpenTelemetryExporter

__all__ = [
    "Exporter",
    "LangSmithExporter",
    "OpenTelemetryExporter",
    "Telemetry",
    "TelemetryExporter",
    "UnknownTelemetry",
    "exporter_of",
]

_HOMES = {"LangSmithExporter": "langsmith", "OpenTelemetryExporter": "opentelemetry"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)

"""The LangGraph store: drop-in, coherent, durable where the log is.

Guarantees: `CoherentStore` and `CCSStore` are one implementation of `langgraph.store.base.BaseStore`; they differ in
the default of `identity` and in nothing else. Does not: need a server; one URL is enough.
"""

from ccs_stream.adapters.langgraph.items import CoherentItem, CoherentSearchItem
from ccs_stream.adapters.langgraph.store import CCSStore, CoherentStore
from ccs_stream.client.lost_updates import LostUpdateWarning
from ccs_stream.projections.metric_events import StoreMetricEvent

__all__ = ["CCSStore", "CoherentItem", "CoherentSearchItem", "CoherentStore", "LostUpdateWarning", "StoreMetricEvent"]

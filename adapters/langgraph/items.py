"""The items that the store returns: LangGraph's own, with the version beside.

Guarantees: an item is a `langgraph.store.base.Item` in every respect, and its value is the caller's own. Does not:
change when the artifact does.
"""

import datetime as dt
from typing import Any

from langgraph.store.base import Item, SearchItem


class CoherentItem(Item):
    """An item and its version, for `compare_and_set(expected=item.version)`."""

    __slots__ = ("_stale", "version")
    version: int

    @property
    def stale(self) -> bool:
        """True if the log could not be asked, so that a newer version may exist."""
        return getattr(self, "_stale", False)  # set only where it is true: nearly all items are current

    @stale.setter
    def stale(self, stale: bool) -> None:  # a property
        self._stale = stale


class CoherentSearchItem(SearchItem):
    """A search result and its version."""

    __slots__ = ("version",)
    version: int


_new = CoherentItem.__new__


def item(
    value: Any,
    key: str,
    namespace: tuple[str, ...],
    created_at: dt.datetime,
    updated_at: dt.datetime,
    version: int,
) -> CoherentItem:
    """An item. Sets the slots directly: the parent's constructor only converts what is converted already."""
    made = _new(CoherentItem)
    made.value = value
    made.key = key
    made.namespace = namespace
    made.created_at = created_at
    made.updated_at = updated_at
    made.version = version
    return made

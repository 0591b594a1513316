"""What all workspaces that a process opens on one log have in common: one node, and one offer to lead.

Guarantees: the first one starts it, the last one to leave ends it, resigning what it leads; what failed is told to all,
and begun anew for whoever comes after. Does not: answer anybody.
"""

import os
import threading
from typing import Final, Protocol

from ccs_stream.coordinator.kafka.follower.log_follower import LogFollower
from ccs_stream.coordinator.kafka.group.candidacy import EmbeddedCandidate
from ccs_stream.coordinator.kafka.group.member import EMBEDDED_CLIENT
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.ports import DecisionListener
from ccs_stream.coordinator.port import wall_clock
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import Refusal
from ccs_stream.log.kafka.sharing import retire
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, Closed


class WorkspaceClient(DecisionListener, Protocol):
    """A workspace that this process has open."""

    def after_round(self) -> None:
        """A look at the log is over; called without a lock, in the thread that follows."""

    def not_sent(self, what: object, refusal: Refusal, error: CcsError) -> None:
        """A command, perhaps of another guest, could not be put into the commands topic."""


class SharedFollower:
    """See the module's docstring."""

    def __init__(self, store: KafkaLog) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._node: LogFollower | None = None
        self._offer: EmbeddedCandidate | None = None
        self._offered = False
        self._guests: tuple[WorkspaceClient, ...] = ()
        self._holders = 0

    @classmethod
    def of(cls, store: KafkaLog) -> "SharedFollower":
        """What this process has in common on a log, to be left once. Raises what starting it raises."""
        with _LOCK[0]:
            found = _MEMBERSHIPS.get(store.clients)
            if found is None or found.failed:
                own = store.another()  # whoever came first may go first
                if own is None:
                    raise Closed(f"{store.display_url} was closed: open it again")
                found = _MEMBERSHIPS[store.clients] = cls(own)
            found._holders += 1
        try:
            found.node  # noqa: B018  # starts it
        except BaseException:
            found.leave()
            raise
        return found

    @property
    def node(self) -> LogFollower:
        """The one node."""
        if self._node is None:
            with self._lock:
                if self._node is None:
                    embedded = self.store.settings.coordinator == "embedded"
                    client_id = EMBEDDED_CLIENT if embedded else None
                    node = LogFollower(self.store, clock=wall_clock, client_id=client_id, selective=not embedded)
                    node.commands.failed = self._not_sent
                    node.after = self._after_round
                    self._offer = EmbeddedCandidate(node) if embedded else None
                    self._node = node
        return self._node

    @property
    def failed(self) -> bool:
        """Whether nothing is followed any more."""
        return self._node is not None and self._node.error is not None

    def follow(self, guest: WorkspaceClient) -> tuple[ShardCoordinator, Directory]:
        """Follow a guest's workspace and tell the guest of it. Raises what following raises."""
        while True:
            shard = self.node.follow_now(guest.workspace)
            state = shard.listen(guest)
            if state is not None:  # else another guest of the same workspace has left at this moment
                return shard, state

    def join(self, guest: WorkspaceClient) -> None:
        """Tell a guest, which follows its workspace, of every look at the log."""
        with self._lock:
            self._guests = (*self._guests, guest)

    def offer(self) -> None:
        """Offer to lead, while that is due, unless it is offered already."""
        with self._lock:
            first, self._offered = not self._offered, True
        if first and self._offer is not None:
            self._offer.start()

    def leave(self, guest: WorkspaceClient | None = None) -> None:
        """Tell a guest nothing any more; the last one to leave ends it all."""
        with self._lock:
            self._guests = tuple(each for each in self._guests if each is not guest)
        with _LOCK[0]:
            self._holders -= 1
            if self._holders:
                return
            if _MEMBERSHIPS.get(self.store.clients) is self:
                del _MEMBERSHIPS[self.store.clients]
        if self._offer is not None:
            self._offer.stop()
        if self._node is not None:
            self._node.close()
        self.store.close()

    def _after_round(self) -> None:
        if self.failed:
            retire(self.store)
        for guest in self._guests:
            guest.after_round()

    def _not_sent(self, what: object, refusal: Refusal, error: CcsError) -> None:
        for guest in self._guests:
            guest.not_sent(what, refusal, error)


_LOCK: Final = [threading.Lock()]
_MEMBERSHIPS: Final[dict[Clients, SharedFollower]] = {}
"""By the clients of a log: those of a forked child are others."""


def _begin_anew() -> None:
    """In a forked child, where what the parent follows is of no use and the lock may be held by nobody."""
    _MEMBERSHIPS.clear()
    _LOCK[0] = threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)

"""The one follower, and the one offer to lead, that all workspaces of a process on one log share.

`RemoteCoordinator` takes part in one. Guarantees: the first workspace starts the follower, the last one to leave ends
it, resigning what it leads; a failed follower fails all workspaces, and the next one to be opened begins with a new
follower. Does not: answer callers.
"""

import threading
from typing import Final, Protocol

from ccs_stream.background import WorkerHealth, when_forked
from ccs_stream.coordinator.kafka.follower.log_follower import LogFollower
from ccs_stream.coordinator.kafka.group.candidacy import EmbeddedCandidate
from ccs_stream.coordinator.kafka.group.member import EMBEDDED_CLIENT
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.ports import DecisionListener
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import BrokerRefusal
from ccs_stream.log.kafka.shared_logs import retire
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, Closed


class WorkspaceClient(DecisionListener, Protocol):
    """A workspace that this process has open."""

    def on_round_end(self) -> None:
        """A round of the follower is over. Called without a lock, in the follower's thread."""

    def on_not_sent(self, command: Command, refusal: BrokerRefusal, error: CcsError) -> None:
        """A command, perhaps of another workspace, could not be put into the commands topic."""


class SharedFollower:
    """The one follower of a log in this process, and who uses it."""

    def __init__(self, store: KafkaLog) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._follower: LogFollower | None = None
        self._candidate: EmbeddedCandidate | None = None
        self._offered = False
        self._clients: tuple[WorkspaceClient, ...] = ()
        self._holders = 0

    @classmethod
    def of(cls, store: KafkaLog) -> "SharedFollower":
        """The one of a log, started where it is not yet. To be left once. Raises what starting it raises."""
        with _LOCK[0]:
            found = _SHARED.get(store.clients)
            if found is None or found.failed:
                own = store.share()  # the workspace that came first may be closed first
                if own is None:
                    raise Closed(f"{store.display_url} was closed: open it again")
                found = _SHARED[store.clients] = cls(own)
            found._holders += 1
        try:
            found.follower  # noqa: B018  # starts it
        except BaseException:
            found.leave()
            raise
        return found

    @property
    def follower(self) -> LogFollower:
        """The one follower."""
        if self._follower is None:
            with self._lock:
                if self._follower is None:
                    embedded = self.store.settings.coordinator == "embedded"
                    client_id = EMBEDDED_CLIENT if embedded else None
                    follower = LogFollower(self.store, client_id=client_id, selective=not embedded)
                    follower.commands.on_failure = self._not_sent
                    follower.on_round_end = self._round_ended
                    self._candidate = EmbeddedCandidate(follower) if embedded else None
                    self._follower = follower
        return self._follower

    @property
    def failed(self) -> bool:
        """True if following has ended with an error."""
        return self._follower is not None and self._follower.error is not None

    def follow(self, client: WorkspaceClient) -> tuple[ShardCoordinator, Directory]:
        """Follow a client's workspace and call the client with its decisions. Raises what following raises."""
        while True:
            shard = self.follower.follow_now(client.workspace)
            state = shard.add_listener(client)
            if state is not None:  # else another client of the same workspace has left at this moment
                return shard, state

    def join(self, client: WorkspaceClient) -> None:
        """Call a client, whose workspace is followed, after every round."""
        with self._lock:
            self._clients = (*self._clients, client)

    def offer_to_lead(self) -> None:
        """Offer to lead while that is due, unless it is offered already."""
        with self._lock:
            first, self._offered = not self._offered, True
        if first and self._candidate is not None:
            self._candidate.start()

    def workers(self) -> tuple[WorkerHealth, ...]:
        """The state of the threads."""
        follower, candidate = self._follower, self._candidate
        return (
            *(() if follower is None else follower.workers()),
            *(() if candidate is None else (candidate.health(),)),
        )

    def leave(self, client: WorkspaceClient | None = None) -> None:
        """Call a client no more; the last one to leave ends the follower."""
        with self._lock:
            self._clients = tuple(each for each in self._clients if each is not client)
        with _LOCK[0]:
            self._holders -= 1
            if self._holders:
                return
            if _SHARED.get(self.store.clients) is self:
                del _SHARED[self.store.clients]
        if self._candidate is not None:
            self._candidate.stop()
        if self._follower is not None:
            self._follower.close()
        self.store.close()

    def _round_ended(self) -> None:
        if self.failed:
            retire(self.store)
        for client in self._clients:
            client.on_round_end()

    def _not_sent(self, command: Command, refusal: BrokerRefusal, error: CcsError) -> None:
        for client in self._clients:
            client.on_not_sent(command, refusal, error)


_LOCK: Final = [threading.Lock()]
_SHARED: Final[dict[Clients, SharedFollower]] = {}
"""By the clients of a log: those of a forked child are others."""


def _begin_anew() -> None:
    """In a forked child, where the parent's followers are of no use and no thread is left to free the lock."""
    _SHARED.clear()
    _LOCK[0] = threading.Lock()


when_forked(_begin_anew)

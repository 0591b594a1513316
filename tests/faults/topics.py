"""Faults of topics: made anew, cut at the head, given more partitions.

Guarantees: each case has a coordinator and a client that run meanwhile, and others that start afterwards; all of them
must stop and say what to do, and the log must hold no second beginning of a workspace. Does not: expect any of them to
go on; what is gone must be restored by people.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # it is public

import ccs_stream
from ccs_stream import CcsError, Workspace
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.protocol.errors import LogDiverged, LogMissing
from tests.faults.checker import decode
from tests.faults.cluster import Cluster
from tests.faults.environment import Environment
from tests.faults.table import Row
from tests.waiting import until

_NOTICED_S: Final = 30.0
"""How long those that run may take to notice."""
_PARTITIONS: Final = 2


def changed(env: Environment) -> Row:
    """Every case, each on a log of its own."""
    row = Row("topics made anew, cut, enlarged")
    for case in (log_made_anew, head_deleted, partitions_added, commands_made_anew):
        with env.cluster(partitions=_PARTITIONS, session_timeout_s=env.session_s, timeout_s=5) as cluster:
            case(_Case(cluster, row, case.__name__.replace("_", " ")))
        row.rounds += 1
    return row


class _Case:
    """One log, one coordinator and one client that run, and what is expected of them."""

    def __init__(self, cluster: Cluster, row: Row, name: str) -> None:
        self.cluster = cluster
        self.row = row
        self.name = name
        self.admin = AdminClient({"bootstrap.servers": cluster.broker.bootstrap_servers})
        cluster.start_coordinators(1)

    @contextlib.contextmanager
    def client(self) -> Iterator[Workspace]:
        """A client that runs, with some acknowledged writes behind it."""
        workspace = ccs_stream.connect(self.cluster.client_url, workspace="w")
        try:
            for number in range(20):
                workspace.agent("a").write(f"k{number % 3}", number)
                self.row.acknowledged += 1
            yield workspace
        finally:
            with contextlib.suppress(CcsError):
                workspace.close()

    def expect(self, holds: object, what: str) -> None:
        """Something that must hold of this case."""
        self.row.expect(holds, f"{self.name}: {what}")

    def coordinator_stops(self, *words: str) -> None:
        """The coordinator that runs ends, and says what to do."""
        (coordinator,) = self.cluster.coordinators
        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            until("the coordinator stops", lambda: not coordinator.runs, _NOTICED_S)
        self.expect(not coordinator.runs, f"the running coordinator goes on: {coordinator.status()}")
        said = coordinator.said.rpartition("error:")[2]
        self.expect(coordinator.runs or any(word in said for word in words), f"the running coordinator said {said!r}")
        self.row.notes.append(
            f"{self.name}: the running coordinator ended after {time.monotonic() - began:.1f} s:{said}"
        )

    def client_stops(self, workspace: Workspace, *words: str) -> None:
        """The running client gets, in the end, an error that says that this log is not what it was."""
        errors: list[CcsError] = []

        def stopped() -> bool:
            try:
                workspace.agent("a").write("k0", "after")
            except CcsError as error:
                errors.append(error)
                return not error.retryable
            return False

        with contextlib.suppress(AssertionError):
            until("the client stops", stopped, _NOTICED_S)
        last = errors[-1] if errors else None
        self.expect(last is not None and not last.retryable, f"the running client goes on: {last!r}")
        self.expect(any(word in str(last) for word in words), f"the running client got {last!r}")

    def no_client_starts(self, *words: str) -> None:
        """Neither a client nor a coordinator starts anew, and both say what to do."""
        try:
            ccs_stream.connect(self.cluster.url, workspace="w").close()
        except (LogDiverged, LogMissing) as error:
            self.expect(any(word in str(error) for word in words), f"a new client got {error}")
        except CcsError as error:
            self.expect(False, f"a new client got {error!r}")
        else:
            self.expect(False, "a new client connects")
        (coordinator,) = self.cluster.start_coordinators(1, ready=False)
        code = coordinator.process.wait(30)
        self.expect(code == 1, f"a new coordinator exits with {code}")
        self.expect(any(word in coordinator.said for word in words), f"a new coordinator said {coordinator.said!r}")

    def no_second_beginning(self, topic: str | None = None) -> None:
        """The log holds no decision that begins a workspace which began before."""
        records = [decode(raw.value) for records in self.cluster.read(topic) for raw in records]
        first = [found for found in records if found and found[0] == "Decision" and found[1]["first_sequence"] == 1]
        opened = [found for found in records if found and found[0] == "LogOpened"]
        self.expect(not (first and opened), f"{len(first)} decisions begin a workspace again")


def log_made_anew(case: _Case) -> None:
    """The log's topic is deleted and made anew, empty; opening it as a new log is refused, too."""
    clients = Clients(KafkaSettings.parse(case.cluster.url))
    with case.client() as workspace:
        case.cluster.make_anew(case.cluster.log_topic, _PARTITIONS)
        until("the broker knows it", lambda: case.cluster.log_topic in topics.describe(clients, settings=False))
        try:
            topics.create(clients)
        except LogDiverged as error:
            case.expect("was deleted" in str(error), f"`topics create` said {error}")
        else:
            case.expect(False, "`topics create` opens an empty log in the place of the one that was")
        words = ("made anew", "was deleted", "was cut off")
        case.coordinator_stops(*words)
        case.client_stops(workspace, *words)
    case.no_client_starts(*words)
    case.no_second_beginning()


def head_deleted(case: _Case) -> None:
    """The first records of every partition are deleted, as retention would."""
    with case.client() as workspace:
        places = [TopicPartition(case.cluster.log_topic, each, 2) for each in range(_PARTITIONS)]
        for done in case.admin.delete_records([each for each in places if _holds(case, each)]).values():
            done.result()
        words = ("head was deleted",)
        case.coordinator_stops(*words)
        case.client_stops(workspace, *words)
    case.no_client_starts(*words)


def _holds(case: _Case, place: TopicPartition) -> bool:
    return len(case.cluster.read()[place.partition]) > place.offset


def partitions_added(case: _Case) -> None:
    """Log and commands get one partition more."""
    with case.client() as workspace:
        more = [NewPartitions(each, _PARTITIONS + 1) for each in (case.cluster.log_topic, case.cluster.commands_topic)]
        for done in case.admin.create_partitions(more).values():
            done.result()
        words = ("partitions",)
        case.coordinator_stops(*words)
        case.client_stops(workspace, *words)
    case.no_client_starts(*words)


def commands_made_anew(case: _Case) -> None:
    """The commands topic is deleted and made anew: those that run stop; those that start go on, from its beginning."""
    with case.client() as workspace:
        case.cluster.make_anew(case.cluster.commands_topic, _PARTITIONS)
        words = ("made anew",)
        case.coordinator_stops(*words)
        case.client_stops(workspace, *words)
    case.cluster.start_coordinators(1)
    with ccs_stream.connect(case.cluster.client_url, workspace="w") as again:
        before = again.agent("b").read("k0")
        assert before is not None
        written = again.agent("b").write("k0", "again")
        case.expect(written.version == before.version + 1, f"version {written.version} follows {before.version}")


Case = Callable[[_Case], None]

"""Opens the coordinator that a log needs. The client calls it; it loads Kafka only for a log on Kafka."""

from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.port import LogStore
from ccs_stream.protocol.settings import WorkspaceSettings


def open_coordinator(
    store: LogStore, workspace: str, settings: WorkspaceSettings | None = None, *, clock: Clock = SYSTEM_CLOCK
) -> Coordinator:
    """The coordinator of a workspace of `store`: this process, where the log serialises its writers, else its leader.

    Raises what opening the workspace raises.
    """
    if store.serialises_writers:
        return LocalCoordinator(store, workspace, settings=settings, clock=clock)
    # librdkafka takes a tenth of a second to load, and most logs do without it.
    from ccs_stream.coordinator.kafka.remote import RemoteCoordinator  # noqa: PLC0415
    from ccs_stream.log.kafka.store import KafkaLog  # noqa: PLC0415

    if not isinstance(store, KafkaLog):
        raise TypeError(f"no coordinator is known for a {type(store).__name__}, which does not serialise its writers")
    return RemoteCoordinator(store, workspace, settings=settings, clock=clock)

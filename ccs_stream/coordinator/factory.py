"""Which coordinator a log needs.

Guarantees: one call for every log. Does not: load what the log does not need.
"""

from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.port import LogStore
from ccs_stream.protocol.settings import WorkspaceSettings


def open_coordinator(store: LogStore, workspace: str, settings: WorkspaceSettings | None = None) -> Coordinator:
    """The coordinator of a workspace of `store`: this process, where the log serialises its writers, else who leads.

    Raises what opening the workspace raises.
    """
    if store.serialises_writers:
        return LocalCoordinator(store, workspace, settings=settings)
    # librdkafka takes a tenth of a second to load, and most logs do without it.
    from ccs_stream.coordinator.kafka.remote import RemoteCoordinator  # noqa: PLC0415
    from ccs_stream.log.kafka.store import KafkaLog  # noqa: PLC0415

    if not isinstance(store, KafkaLog):
        raise TypeError(f"no coordinator is known for a {type(store).__name__}, which does not serialise its writers")
    return RemoteCoordinator(store, workspace, settings=settings)

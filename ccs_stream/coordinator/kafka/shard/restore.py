"""The start of a shard: at its newest snapshots, so that only the records behind them have to be read.

Guarantees: a snapshot is used only when its own digest, its state's hash and the log agree with it, and only together
with the snapshots of every other workspace the shard needs at the very same place; otherwise the shard is read from its
beginning, which is logged as a warning. Does not: read the records behind the snapshots; the follower does.
"""

import logging

from ccs_stream.coordinator.kafka.shard.replica import ShardReplica
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.snapshot import RestoredSnapshot, verified_snapshot
from ccs_stream.protocol.errors import LogDiverged, LogError
from ccs_stream.protocol.records import DecisionRecord

LOG = logging.getLogger(__name__)


def restore(replica: ShardReplica) -> None:
    """Put `replica` behind the newest place at which snapshots can be trusted. Raises `LogMissing`, `LogDiverged`."""
    store = replica.store
    store.check_head(replica.partition)
    names = (
        store.workspaces_with_snapshots(replica.partition)
        if replica.follows_all
        else frozenset((replica.reader.shard,))
    )
    found: dict[str, list[RestoredSnapshot]] = {name: _trusted(store, name) for name in names}
    candidates = sorted({each.position.offset for these in found.values() for each in these}, reverse=True)
    for offset in candidates:
        there = {name: each for name, these in found.items() for each in these if each.position.offset == offset}
        cursor = next(iter(there.values())).cursor
        if cursor is None:
            continue
        needed = set(cursor.workspaces) if replica.follows_all else set(names)
        if not needed <= there.keys():
            continue
        for name in needed:
            replica.states[name] = there[name].state
            store.index(name).pin(there[name].body_offsets, there[name].position.sequence)
        replica.reader.move_to(cursor.copy(), offset)
        LOG.info(
            "%s [%d]: %d workspaces from snapshots at offset %d",
            store.names.log,
            replica.partition,
            len(needed),
            offset,
        )
        return
    if candidates:
        LOG.warning(
            "the snapshots of %s [%d] do not fit together: it is read from its beginning",
            store.names.log,
            replica.partition,
        )


def _trusted(store: KafkaLog, workspace: str) -> list[RestoredSnapshot]:
    """The snapshots of a workspace that are sound in themselves and that agree with the log."""
    trusted: list[RestoredSnapshot] = []
    for blob in store.snapshots(workspace):
        try:
            opened = verified_snapshot(blob, workspace)
            _check_against_log(store, workspace, opened)
        except LogError as error:
            LOG.warning("snapshot %s of %s is not used: %s", blob.snapshot_id, store.display_url, error)
        else:
            trusted.append(opened)
    return trusted


def _check_against_log(store: KafkaLog, workspace: str, opened: RestoredSnapshot) -> None:
    """Check that the log holds, at the snapshot's place, the decision behind which the snapshot was taken.

    Raises `LogDiverged`.
    """
    position, cursor = opened.position, opened.cursor
    if cursor is None:
        raise LogDiverged("the snapshot does not say where its shard stood")
    if position.log_id != store.log_id:
        raise LogDiverged("the snapshot is of another log")
    end = cursor.workspaces.get(workspace)
    if end is None or (end.sequence, end.hash) != (position.sequence, position.hash):
        raise LogDiverged("the snapshot contradicts itself about where its workspace stood")
    stored = store.record_at(workspace, position.offset)
    record = None if stored is None else stored.record
    if (
        stored is None
        or type(record) is not DecisionRecord
        or (record.epoch, record.leader_id, record.index) != (cursor.epoch, cursor.leader_id, cursor.index)
        or chain_hash(stored.head) != cursor.end(record.workspace).hash
    ):
        raise LogDiverged(
            f"the log does not hold at offset {position.offset} the decision that the snapshot was taken behind: the "
            "snapshot is newer than this log, or of another one"
        )

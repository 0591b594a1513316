"""`export`: write one workspace to one file.

Guarantees: the file holds the original bytes of every record, the contents, the schemas, and a footer with the end's
position, chain hash and state hash; it appears whole or not at all. If the workspace shares a shard, the file holds all
records of the shard, those of other workspaces without their contents. Does not: overwrite a file unless `--force` is
given.
"""

from pathlib import Path

from ccs_stream.log.archive import Anchor
from ccs_stream.log.archive_writer import write_archive
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.replay.output import print_json, say
from ccs_stream.replay.source import Source


def run(source: Source, output: Path, *, force: bool, as_json: bool) -> None:
    """Write the archive and print a summary of it."""
    if output.exists() and not force:
        raise UsageError(f"{output} exists: choose another name, or replace it with --force")
    folded = source.state_at(None)
    position = folded.position
    anchor = Anchor(
        workspace=source.workspace,
        log_id=position.log_id,
        offset=folded.offset,
        sequence=position.sequence,
        hash=position.hash,
        state_hash=state_hash(folded.state),
    )
    records = write_archive(source.store, source.workspace, output, anchor=anchor)
    summary = {
        "archive": str(output),
        "workspace": source.workspace,
        "records": records,
        "sequence": anchor.sequence,
        "chain_hash": anchor.hash.hex(),
        "state_hash": anchor.state_hash,
        "bytes": output.stat().st_size,
    }
    if as_json:
        print_json(summary)
    else:
        say(f"{records} records to sequence {anchor.sequence} in {output} ({summary['bytes']} bytes)")
        say(f"state hash {anchor.state_hash}")

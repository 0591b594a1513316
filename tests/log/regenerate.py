"""Writes golden files that do not exist yet: `python -m tests.log.regenerate`. Never replaces a released one."""

import hashlib
import json
import sys
import tempfile
from importlib import resources
from pathlib import Path

from ccs_stream.log.archive import Anchor
from ccs_stream.log.archive_writer import write_archive
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.commands import encode_command
from ccs_stream.log.port import Position
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.protocol.ids import artifact_id
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.statehash import state_hash
from tests.log.led import play_led
from tests.log.samples import COMMANDS, EVENTS, RECORDS, TRACE_PARENT
from tests.log.scenario import IDENTITY, LOG_ID, SWEPT_S, WORKSPACE, play

GOLDEN = Path(__file__).parent / "golden" / "v1"


def put(path: Path, text: str) -> None:
    """Write a file once."""
    if path.exists():
        sys.stderr.write(f"kept {path}\n")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    sys.stderr.write(f"wrote {path}\n")


def put_entries(name: str, entries: dict[str, str]) -> None:
    """Those that were not released yet, in a file of their own."""
    released = {key for each in GOLDEN.glob(f"{name}*.json") for key in json.loads(each.read_text("utf-8"))}
    added = {key: data for key, data in entries.items() if key not in released}
    if added:
        number = len(list(GOLDEN.glob(f"{name}*.json"))) + 1
        put(GOLDEN / f"{name}-{number}.json", json.dumps(added, indent=1) + "\n")


def logged(trace_parent: str | None = None, identity: ProcessIdentity | None = None) -> str:
    """The log of the history."""
    drafts, state, cursor = play(trace_parent=trace_parent, identity=identity)
    end = cursor.end(WORKSPACE)
    log = {
        "workspace": WORKSPACE,
        "records": [[draft.head.hex(), [body.hex() for body in draft.contents]] for draft in drafts],
        "sequence": end.sequence,
        "chain_hash": end.hash.hex(),
        "state_hash": state_hash(state),
    }
    return json.dumps(log, indent=1) + "\n"


def snapshot_of(identity: ProcessIdentity | None = None) -> str:
    """A snapshot of the history where nobody has left yet."""
    drafts, state, cursor = play(SWEPT_S, identity=identity)
    end = cursor.end(WORKSPACE)
    position = Position(LOG_ID, WORKSPACE, len(drafts) - 1, end.sequence, end.hash)
    snapshot = take_snapshot(state, position, cursor=cursor, offset_of=lambda sequence: 2 * sequence)
    return snapshot.data.hex() + "\n"


def archived() -> str:
    """An archive of a log whose leaders claim, as it was written when there were first such archives."""
    store = play_led()
    end, state = store.cursor.end(WORKSPACE), store.states[WORKSPACE]
    anchor = Anchor(
        workspace=WORKSPACE,
        log_id=LOG_ID,
        offset=store.end(WORKSPACE),
        sequence=end.sequence,
        hash=end.hash,
        state_hash=state_hash(state),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "golden.avro"
        write_archive(store, WORKSPACE, path, anchor=anchor)
        return path.read_bytes().hex()


def main() -> None:
    """Write what is missing."""
    encoded = {name: DEFAULT_CODEC.encode_event(event).hex() for name, event in EVENTS.items()}
    encoded.update({name: DEFAULT_CODEC.encode_record(record).hex() for name, record in RECORDS.items()})
    put_entries("records", encoded)
    put_entries("commands", {kind: encode_command("w", command).hex() for kind, command in COMMANDS.items()})
    put(GOLDEN / "log-2.json", logged())
    put(GOLDEN / "log-3.json", logged(TRACE_PARENT))
    put(GOLDEN / "log-4.json", logged(identity=IDENTITY))
    put(GOLDEN / "snapshot-3.hex", snapshot_of())
    put(GOLDEN / "snapshot-4.hex", snapshot_of(IDENTITY))
    put(GOLDEN / "archive-2.hex", archived() + "\n")
    schemas = Path(str(resources.files("ccs_stream.schemas")))
    for each in sorted(schemas.rglob("*.avsc")):
        put(GOLDEN / "schemas" / each.relative_to(schemas), each.read_text("utf-8"))
    addresses = [
        ("w", ("a:b",), "k"),
        ("w", ("a", "b"), "k"),
        ("w", ("a",), "b:k"),
        ("w", (), "k"),
        ("ü", ("[",), '"]'),
    ]
    ids = {str(number): artifact_id(*address).hex() for number, address in enumerate(addresses, start=1)}
    put(GOLDEN / "artifact_ids.json", json.dumps(ids, indent=1) + "\n")
    digests = {
        str(path.relative_to(GOLDEN)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(GOLDEN.rglob("*"))
        if path.is_file() and path.name != "SHA256.json"
    }
    put(GOLDEN / "SHA256.json", json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    main()

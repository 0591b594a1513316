"""Commands as fastavro writes and reads them: what the compiled codec of commands is compared with."""

from collections.abc import Container, Mapping
from typing import Any, Final

from ccs_stream.log.schemas import MARKER, PREFIX_BYTES, Schema, registry
from ccs_stream.protocol import commands as cmd
from ccs_stream.protocol.commands import Command, CommandKind, WriteMode
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.settings import WorkspaceSettings

_REGISTRY: Final = registry("commands")
_ENVELOPE: Final = _REGISTRY.current("SubmittedCommand")
_NAMES: Final[Mapping[CommandKind, str]] = {
    CommandKind.OPEN: "Open",
    CommandKind.JOIN: "Join",
    CommandKind.LEAVE: "Leave",
    CommandKind.EVICT: "Evict",
    CommandKind.READ: "Read",
    CommandKind.COMMIT: "Commit",
    CommandKind.COMMIT_ALL: "Commit",
    CommandKind.DELETE: "Commit",
    CommandKind.REFRESH: "Refresh",
    CommandKind.ACQUIRE: "Acquire",
    CommandKind.RELEASE: "Release",
    CommandKind.HEARTBEAT: "Heartbeat",
}
"""The record of each command; a sweep is the leader's own and never travels."""
_SCHEMAS: Final = {name: _REGISTRY.current(name) for name in set(_NAMES.values())}
_CLASSES: Final[Mapping[str, Any]] = {name: getattr(cmd, name) for name in set(_NAMES.values())}
_KINDS: Final = {kind.value: kind for kind in CommandKind}


def encode_by_fastavro(workspace: str, command: Command) -> bytes:
    """A command as fastavro writes it."""
    schema = _schema_of(command)
    contents: list[bytes] = []
    fields = {
        "workspace": workspace,
        "session_id": command.session_id,
        "number": command.number,
        "kind": command.KIND.value,
        "body": schema.write(_fields(command, contents)),
        "contents": contents,
    }
    return _ENVELOPE.write(fields)


def decode_by_fastavro(data: bytes) -> tuple[str, Command]:
    """A command as fastavro reads it. Raises `CorruptRecord`, `UnknownSchema`."""
    envelope = _read(data, (_ENVELOPE.name,))[1]
    name, fields = _read(envelope["body"], _SCHEMAS)
    if _NAMES.get(_KINDS[envelope["kind"]]) != name:
        raise CorruptRecord(f"a command says it is {envelope['kind']!r} and holds a {name}")
    try:
        command = _command(name, fields, envelope)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CorruptRecord(f"the command contradicts itself: {error}") from error
    return envelope["workspace"], command


def _read(data: bytes, names: Container[str]) -> tuple[str, dict[str, Any]]:
    """Name and fields of a record, which must be one of these names, under whichever schema it was written."""
    if not data.startswith(MARKER):
        raise CorruptRecord("not a single-object-encoded Avro record: the marker C3 01 is missing")
    prefix = data[:PREFIX_BYTES]
    schema = _REGISTRY.by_prefix.get(prefix)
    if schema is None or schema.name not in names:
        raise UnknownSchema(f"a command of unknown schema {prefix[len(MARKER) :].hex()}: it is of a later release")
    return schema.name, schema.read(data, None if schema.current else _REGISTRY.current(schema.name))


def _fields(command: Command, contents: list[bytes]) -> dict[str, Any]:
    match command:
        case cmd.Open():
            settings = command.settings
            return {name: getattr(settings, name) for name in WorkspaceSettings.__slots__}
        case cmd.Commit():
            changes = [_change_fields(change, contents) for change in command.changes]
            return {"agent": command.agent, "changes": changes}
        case cmd.Acquire():
            return {
                "agent": command.agent,
                "artifact": command.artifact,
                "scope": list(command.scope),
                "key": command.key,
                "duration_us": command.duration_us,
            }
        case cmd.Sweep():
            raise CorruptRecord("a sweep is the leader's own command and never travels")
        case _:
            return {field["name"]: getattr(command, field["name"]) for field in _schema_of(command).source["fields"]}


def _schema_of(command: Command) -> Schema:
    """The oldest that can say it, so that a coordinator of an earlier release takes what it always took."""
    if type(command) is cmd.Commit and not any(_traced(each) for each in command.changes):
        return _REGISTRY.superseded("Commit")[0]
    if type(command) is cmd.Join and ProcessIdentity.of(command) is None:
        return _REGISTRY.superseded("Join")[0]
    return _SCHEMAS[_NAMES[command.KIND]]


def _traced(change: cmd.ArtifactChange) -> bool:
    return type(change) is cmd.Write and change.trace_parent is not None


def _change_fields(change: cmd.ArtifactChange, contents: list[bytes]) -> Any:
    common = {
        "artifact": change.artifact,
        "mode": change.mode.value,
        "base_version": change.base_version,
        "fence": change.fence,
        "reason": change.reason,
    }
    if isinstance(change, cmd.Erase):
        return ("ccs.commands.CommandErase", common)
    content = change.content
    index: int | None = None
    if content.body is not None:
        index = len(contents)
        contents.append(content.body)
    write = {
        **common,
        "scope": list(change.scope),
        "key": change.key,
        "content_type": content.content_type,
        "content_encoding": content.content_encoding,
        "content_hash": content.content_hash,
        "content_size": content.size,
        "content_index": index,
        "content_locator": content.locator,
        "uploaded_at": content.uploaded_at,
        "ttl_us": change.ttl_us,
        "index_fields": None if change.index_fields is None else list(change.index_fields),
        "trace_parent": change.trace_parent,
    }
    return ("ccs.commands.CommandWrite", write)


def _command(name: str, fields: dict[str, Any], envelope: dict[str, Any]) -> Command:
    common = {"session_id": envelope["session_id"], "number": envelope["number"]}
    if name == "Open":
        return cmd.Open(**common, settings=WorkspaceSettings(**fields))
    if name == "Commit":
        changes = tuple(_change(each, envelope["contents"]) for each in fields["changes"])
        return cmd.Commit(**common, agent=fields["agent"], changes=changes)
    if name == "Acquire":
        fields["scope"] = tuple(fields["scope"])
    command: Command = _CLASSES[name](**common, **fields)
    return command


def _change(fields: dict[str, Any], contents: list[bytes]) -> cmd.ArtifactChange:
    mode = WriteMode(fields.pop("mode"))
    if "content_hash" not in fields:
        return cmd.Erase(mode=mode, **fields)
    index = fields["content_index"]
    content = cmd.Content(
        content_type=fields["content_type"],
        content_encoding=fields["content_encoding"],
        content_hash=fields["content_hash"],
        size=fields["content_size"],
        body=None if index is None else contents[index],
        locator=fields["content_locator"],
        uploaded_at=fields["uploaded_at"],
    )
    return cmd.Write(
        artifact=fields["artifact"],
        scope=tuple(fields["scope"]),
        key=fields["key"],
        content=content,
        mode=mode,
        base_version=fields["base_version"],
        fence=fields["fence"],
        ttl_us=fields["ttl_us"],
        index_fields=None if fields["index_fields"] is None else tuple(fields["index_fields"]),
        reason=fields["reason"],
        trace_parent=fields["trace_parent"],
    )

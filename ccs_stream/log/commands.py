"""Commands on their way to the leader, as single-object-encoded Avro, and back.

The commands topic of Kafka uses it. A command travels as an envelope (`SubmittedCommand`) around a record of its own,
so that a reader that meets a command of a later release still knows whose it is. Bodies travel beside the record, as
they do in a decision: the field `content_index` holds the place of a body in the envelope's `contents`.

Guarantees: what is encoded decodes to an equal command of the same workspace; anything else raises `CorruptRecord`, or
`UnknownSchema` for a command of a later release. Does not: say whether a command is allowed; `decide` does.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ccs_stream.log.compiled_decoder import compile_decoder
from ccs_stream.log.compiled_encoder import compile_encoder
from ccs_stream.log.schemas import MARKER, PREFIX_BYTES, registry
from ccs_stream.protocol import commands as cmd
from ccs_stream.protocol.commands import Command, CommandKind
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema

_REGISTRY: Final = registry("commands")
_ENVELOPE: Final = _REGISTRY.current("SubmittedCommand")
_CLASSES: Final[Mapping[CommandKind, type[Any]]] = {
    CommandKind.OPEN: cmd.Open,
    CommandKind.JOIN: cmd.Join,
    CommandKind.LEAVE: cmd.Leave,
    CommandKind.EVICT: cmd.Evict,
    CommandKind.READ: cmd.Read,
    CommandKind.COMMIT: cmd.Commit,
    CommandKind.COMMIT_ALL: cmd.Commit,
    CommandKind.DELETE: cmd.Commit,
    CommandKind.REFRESH: cmd.Refresh,
    CommandKind.ACQUIRE: cmd.Acquire,
    CommandKind.RELEASE: cmd.Release,
    CommandKind.HEARTBEAT: cmd.Heartbeat,
}
"""The class of each command; its name is that of its record. A sweep is the leader's own command and never travels."""
_BY_NAME: Final = {cls.__name__: cls for cls in _CLASSES.values()}
_IN_ENVELOPE: Final = ("session_id", "number")
"""Members of every command that the envelope carries."""
_BESIDE: Final = {"content_index": "body"}

_encode_envelope: Final = compile_encoder([_ENVELOPE])
_decode_envelope: Final = compile_decoder(_ENVELOPE)
_encoders: Final[dict[type[Any], Callable[[Command, list[bytes]], bytes]]] = {}
_decoders: Final[dict[bytes, tuple[type[Any], Callable[..., Command]]]] = {}


def encode_command(workspace: str, command: Command) -> bytes:
    """Encode a command for the commands topic, where its key is `workspace`. KeyError for one that never travels."""
    cls = type(command)
    encode = _encoders.get(cls) or _encoder(cls)
    contents: list[bytes] = []
    body = encode(command, contents)
    return _encode_envelope(workspace, command.session_id, command.number, command.KIND, body, contents)


def decode_command(data: bytes) -> tuple[str, Command]:
    """Decode a workspace and its command. Raises `CorruptRecord`, `UnknownSchema`."""
    if not data.startswith(_ENVELOPE.prefix):
        raise _refused(data)
    workspace, session_id, number, kind, body, contents = _decode_envelope(data)
    cls, decode = _decoders.get(body[:PREFIX_BYTES]) or _decoder(body)
    if _CLASSES[kind] is not cls:
        raise CorruptRecord(f"a command says it is {kind!r} and holds a {cls.__name__}")
    return workspace, decode(body, session_id, number, contents)


def _encoder(cls: type[Any]) -> Callable[[Command, list[bytes]], bytes]:
    name = cls.__name__
    schemas = [*_REGISTRY.superseded(name), _REGISTRY.current(name)]
    encoder = _encoders[cls] = compile_encoder(schemas, cls, beside=_BESIDE)
    return encoder


def _decoder(body: bytes) -> tuple[type[Any], Callable[..., Command]]:
    schema = _REGISTRY.by_prefix.get(body[:PREFIX_BYTES])
    if schema is None or schema.name not in _BY_NAME:
        raise _refused(body)
    cls = _BY_NAME[schema.name]
    found = cls, compile_decoder(schema, cls, given=_IN_ENVELOPE, beside=_BESIDE)
    _decoders[schema.prefix] = found
    return found


def _refused(data: bytes) -> CorruptRecord:
    """The error for a record under no schema of a command."""
    if not data.startswith(MARKER):
        return CorruptRecord("not a single-object-encoded Avro record: the marker C3 01 is missing")
    fingerprint = data[len(MARKER) : PREFIX_BYTES].hex()
    return UnknownSchema(f"a command of unknown schema {fingerprint}: it is of a later release")

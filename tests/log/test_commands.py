"""Commands as messages: golden bytes, and typed errors for what is no command."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.log.commands import decode_command, encode_command
from ccs_stream.log.schemas import registry
from ccs_stream.protocol.commands import Command, CommandKind, Commit, Content, Sweep, Write, WriteMode
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber
from tests.log.fastavro_commands import decode_by_fastavro, encode_by_fastavro
from tests.log.samples import COMMANDS, TRACE_PARENT

FOLDER = Path(__file__).parent / "golden" / "v1"
GOLDEN: dict[str, str] = {
    name: data
    for file in ("commands.json", "commands-2.json", "commands-3.json")
    for name, data in json.loads((FOLDER / file).read_text("utf-8")).items()
}
FROZEN_COMMIT_PREFIX = "c3014190d52a2fe79650"


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_golden_command_decodes_to_what_was_sent_and_encodes_to_the_same_bytes(kind: str) -> None:
    golden = bytes.fromhex(GOLDEN[kind])
    assert decode_command(golden) == ("w", COMMANDS[kind])
    assert encode_command("w", COMMANDS[kind]) == golden
    assert COMMANDS[kind].KIND.value == kind.partition("-")[0]


def test_every_command_that_travels_has_golden_bytes() -> None:
    assert set(COMMANDS) == set(GOLDEN)
    assert {name.partition("-")[0] for name in GOLDEN} == {kind.value for kind in CommandKind} - {"sweep"}


@pytest.mark.parametrize("kind", ["commit", "commit_all", "delete"])
def test_a_commit_that_carries_no_trace_is_what_earlier_releases_take(kind: str) -> None:
    assert bytes.fromhex(FROZEN_COMMIT_PREFIX) in encode_command("w", COMMANDS[kind])
    assert bytes.fromhex(FROZEN_COMMIT_PREFIX) in encode_by_fastavro("w", COMMANDS[kind])


@pytest.mark.parametrize("kind", ["commit-traced", "commit_all-traced"])
def test_a_commit_that_carries_a_trace_has_the_schema_that_says_so(kind: str) -> None:
    assert registry("commands").current("Commit").prefix in encode_command("w", COMMANDS[kind])


def test_a_commit_without_a_trace_under_the_schema_that_has_one_is_read() -> None:
    envelope, commit = registry("commands").current("SubmittedCommand"), registry("commands").current("Commit")
    fields = envelope.read(encode_command("w", COMMANDS["commit-traced"]))
    body = commit.read(fields["body"])
    body["changes"][0]["trace_parent"] = None
    data = envelope.write({**fields, "body": commit.write(body)})
    assert decode_command(data) == decode_by_fastavro(data)
    (change,) = decode_command(data)[1].changes  # type: ignore[union-attr]
    assert isinstance(change, Write)
    assert change.trace_parent is None


def test_a_sweep_never_travels() -> None:
    with pytest.raises(KeyError):
        encode_command("w", Sweep(session_id=NO_SESSION, number=CommandNumber(0), limit=1))


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_cut_at_any_byte_is_corrupt(kind: str) -> None:
    golden = bytes.fromhex(GOLDEN[kind])
    for length in range(len(golden)):
        with pytest.raises(CorruptRecord):
            decode_command(golden[:length])
    with pytest.raises(CorruptRecord):
        decode_command(golden + b"\x00")


def test_a_command_with_a_flipped_bit_is_another_one_or_corrupt() -> None:
    golden = bytearray.fromhex(GOLDEN["commit_all"])
    for place in range(len(golden)):
        for bit in range(8):
            golden[place] ^= 1 << bit
            try:
                decode_command(bytes(golden))
            except CorruptRecord:
                pass
            finally:
                golden[place] ^= 1 << bit


longs = st.integers(0, 2**62)
texts = st.text(max_size=40)
contents = st.builds(
    Content,
    content_type=texts,
    content_encoding=texts,
    content_hash=st.binary(min_size=32, max_size=32),
    size=longs,
    body=st.none() | st.binary(max_size=300),
    locator=st.none() | st.binary(max_size=80),
    uploaded_at=st.none() | longs,
)
writes = st.builds(
    Write,
    artifact=st.binary(min_size=16, max_size=16),
    scope=st.lists(texts, max_size=3).map(tuple),
    key=texts,
    content=contents,
    mode=st.sampled_from(WriteMode),
    base_version=st.none() | longs,
    fence=st.none() | longs,
    ttl_us=st.none() | longs,
    index_fields=st.none() | st.just(("a", "b")),
    reason=st.none() | texts,
    trace_parent=st.none() | texts,
)
commits = st.builds(
    Commit,
    session_id=st.binary(min_size=16, max_size=16),
    number=longs,
    agent=texts,
    changes=st.lists(writes, min_size=1, max_size=2).map(tuple),
)


@given(texts, commits)
def test_a_commit_is_what_fastavro_writes_and_reads(workspace: str, commit: Commit) -> None:
    encoded = encode_command(workspace, commit)
    assert encoded == encode_by_fastavro(workspace, commit)
    assert decode_command(encoded) == decode_by_fastavro(encoded) == (workspace, commit)


def outcome(decode: object, data: bytes) -> tuple[str, Command] | None:
    assert callable(decode)
    try:
        found: tuple[str, Command] = decode(data)
    except CorruptRecord:
        return None
    return found


@pytest.mark.parametrize("trace_parent", [None, TRACE_PARENT])
@pytest.mark.parametrize("index_fields", [None, ("text",)])
def test_a_garbled_commit_reads_as_fastavro_reads_it(
    index_fields: tuple[str, ...] | None, trace_parent: str | None
) -> None:
    commit = COMMANDS["commit"]
    assert isinstance(commit, Commit)
    (change,) = commit.changes
    assert isinstance(change, Write)
    change = dataclasses.replace(change, index_fields=index_fields, trace_parent=trace_parent)
    commit = dataclasses.replace(commit, changes=(change,))
    golden = bytearray(encode_command("w", commit))
    read = 0
    for place in range(len(golden)):
        for bit in range(8):
            golden[place] ^= 1 << bit
            ours, theirs = outcome(decode_command, bytes(golden)), outcome(decode_by_fastavro, bytes(golden))
            # fastavro counts a negative branch or symbol (an odd byte) from the end; for the specification it is none.
            assert ours == theirs or (ours is None and bit == 0 and golden[place] & 1), (place, bit)
            read += ours is not None
            golden[place] ^= 1 << bit
    assert read > 500


@pytest.mark.parametrize("kind", COMMANDS)
def test_each_command_is_what_fastavro_writes_and_reads(kind: str) -> None:
    encoded = encode_command("w", COMMANDS[kind])
    assert encoded == encode_by_fastavro("w", COMMANDS[kind])
    assert decode_command(encoded) == decode_by_fastavro(encoded)


def test_a_command_of_a_later_release_is_told_from_garbage() -> None:
    with pytest.raises(UnknownSchema, match="later release"):
        decode_command(b"\xc3\x01" + bytes(8) + b"x")
    with pytest.raises(CorruptRecord, match="marker"):
        decode_command(b"hello")

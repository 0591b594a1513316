"""Commands as messages: golden bytes, and typed errors for what is no command."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.log import express_commands
from ccs_stream.log.commands import decode_command, decode_generally, encode_command, encode_generally
from ccs_stream.protocol.commands import Command, CommandKind, Commit, Content, Sweep, Write, WriteMode
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber
from tests.contract.samples import COMMANDS

GOLDEN: dict[str, str] = json.loads((Path(__file__).parent / "golden" / "v1" / "commands.json").read_text("utf-8"))


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_golden_command_decodes_to_what_was_sent_and_encodes_to_the_same_bytes(kind: str) -> None:
    golden = bytes.fromhex(GOLDEN[kind])
    assert decode_command(golden) == ("w", COMMANDS[kind])
    assert encode_command("w", COMMANDS[kind]) == golden
    assert COMMANDS[kind].KIND.value == kind


def test_every_command_that_travels_has_golden_bytes() -> None:
    assert set(COMMANDS) == set(GOLDEN) == {kind.value for kind in CommandKind} - {"sweep"}


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
)
commits = st.builds(
    Commit,
    session_id=st.binary(min_size=16, max_size=16),
    number=longs,
    agent=texts,
    changes=st.lists(writes, min_size=1, max_size=2).map(tuple),
)


@given(texts, commits)
def test_a_commit_written_by_hand_is_what_fastavro_writes_and_reads(workspace: str, commit: Commit) -> None:
    encoded = encode_command(workspace, commit)
    assert encoded == encode_generally(workspace, commit)
    assert decode_command(encoded) == decode_generally(encoded) == (workspace, commit)


def outcome(decode: object, data: bytes) -> tuple[str, Command] | None:
    assert callable(decode)
    try:
        found: tuple[str, Command] = decode(data)
    except CorruptRecord:
        return None
    return found


@pytest.mark.parametrize("index_fields", [None, ("text",)])
def test_a_garbled_commit_reads_by_hand_as_it_reads_generally(index_fields: tuple[str, ...] | None) -> None:
    commit = COMMANDS["commit"]
    assert isinstance(commit, Commit)
    (change,) = commit.changes
    assert isinstance(change, Write)
    commit = dataclasses.replace(commit, changes=(dataclasses.replace(change, index_fields=index_fields),))
    golden = bytearray(encode_command("w", commit))
    by_hand = 0
    for place in range(len(golden)):
        for bit in range(8):
            golden[place] ^= 1 << bit
            data = bytes(golden)
            assert outcome(decode_command, data) == outcome(decode_generally, data), (place, bit)
            by_hand += express_commands.decode_commit(data) is not None
            golden[place] ^= 1 << bit
    assert by_hand > 500 or index_fields is not None


def test_a_command_of_a_later_release_is_told_from_garbage() -> None:
    with pytest.raises(UnknownSchema, match="later release"):
        decode_command(b"\xc3\x01" + bytes(8) + b"x")
    with pytest.raises(CorruptRecord, match="marker"):
        decode_command(b"hello")

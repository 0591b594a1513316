"""Commands as messages: golden bytes, and typed errors for what is no command."""

import json
from pathlib import Path

import pytest

from ccs_stream.log.commands import decode_command, encode_command
from ccs_stream.protocol.commands import CommandKind, Sweep
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


def test_a_command_of_a_later_release_is_told_from_garbage() -> None:
    with pytest.raises(UnknownSchema, match="later release"):
        decode_command(b"\xc3\x01" + bytes(8) + b"x")
    with pytest.raises(CorruptRecord, match="marker"):
        decode_command(b"hello")

"""Container files of others: whatever they hold, reading them takes bounded memory and raises errors of ours."""

import io
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccs_stream.log.archive import ArchiveLog, archive_schema
from ccs_stream.log.avro import write_long
from ccs_stream.log.avro_container import ContainerReader
from ccs_stream.protocol.errors import CcsError, CorruptRecord, LogError

GOLDEN = [bytes.fromhex(each.read_text()) for each in (Path(__file__).parent / "golden" / "v1").glob("archive*.hex")]


def header(codec: bytes = b"deflate") -> bytes:
    """The header of an empty archive."""
    out = io.BytesIO()
    fastavro.writer(out, archive_schema(), [], codec=codec.decode())
    return out.getvalue()


def block(count: int, data: bytes, *, size: int | None = None, sync: bytes) -> bytes:
    return write_long(count) + write_long(len(data) if size is None else size) + data + sync


def deflated(size: int) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    pieces = [deflater.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)]
    return b"".join([*pieces, deflater.flush()])


def peak_of(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(LogError):
            ArchiveLog(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_block_that_inflates_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    path, head = tmp_path / "x.avro", header()
    path.write_bytes(head + block(1, deflated(600_000_000), sync=head[-16:]))
    assert peak_of(path) < 290_000_000


@pytest.mark.parametrize("count", [-1, 1 << 62, 1_000_000])
@pytest.mark.parametrize("size", [None, -1, 1 << 62, 1 << 33])
def test_numbers_that_the_file_does_not_hold_are_refused(tmp_path: Path, count: int, size: int | None) -> None:
    path, head = tmp_path / "x.avro", header()
    path.write_bytes(head + block(count, deflated(1_000_000), size=size, sync=head[-16:]))
    assert peak_of(path) < 120_000_000


def test_a_block_of_many_tiny_rows_takes_bounded_memory(tmp_path: Path) -> None:
    path, head = tmp_path / "x.avro", header()
    path.write_bytes(head + block(10_000_000, deflated(100_000_000), sync=head[-16:]))
    assert peak_of(path) < 290_000_000


@pytest.mark.parametrize("length", [-1, 1 << 62, 1 << 31])
def test_a_header_that_is_longer_than_its_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.avro"
    for beginning in (write_long(1) + write_long(length), write_long(length), write_long(-length) + write_long(1)):
        path.write_bytes(b"Obj\x01" + beginning + b"avro.schema")
        assert peak_of(path) < 20_000_000


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_it_reads_what_fastavro_writes(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x.avro"
    row: dict[str, Any] = {"kind": "content", "offset": -1, "locator": b"7", "head": b"x" * 70_000, "tail": b""}
    rows = [{**row, "first_sequence": number} for number in range(50)]
    with path.open("wb") as out:
        fastavro.writer(out, archive_schema(), rows, codec=codec, sync_interval=100_000)
    with path.open("rb") as source:
        container = ContainerReader(source, archive_schema())
        found = list(container.blocks())
        assert len(found) > 5
        assert [each["first_sequence"] for _, some in found for each in some] == list(range(50))
        source.seek(found[3][0])
        assert list(container.blocks()) == found[3:]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_lead_to_errors_of_ours(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    original = data.draw(st.sampled_from(GOLDEN))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    path = tmp_path_factory.mktemp("damaged") / "x.avro"
    path.write_bytes(bytes(damaged))
    try:
        log = ArchiveLog(path)
        for record in log.read(log.anchor.workspace, -1):
            assert isinstance(record.head, bytes)
        for locator in log._contents:
            log.get_content(locator)
    except (CcsError, CorruptRecord):
        return

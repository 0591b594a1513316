"""A URL opens the file that it names, or is refused; and so is a position that is none."""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.log.port import Position
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import CcsError, UsageError
from ccs_stream.protocol.ids import Hash, LogId, SequenceNumber

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:team.db",
        "sqlite:/team.db",
        "sqlite://team.db",
        "sqlite:",
        "sqlite:///",
        "sqlite:///team#1.db",
        "file:team#1.avro",
        "sqlite:///:memory:",
        "sqlite:///:memory:?synchronous=normal",
        "sqlite:///a\nb.db",
        "sqlite:///a\tb.db",
        "sqlite:///a%00b.db",
        "sqlite:///a%ffb.db",
        "sqlite:///\ud83d.db",
        "sqlite:///team.db?busy_timeout_s=nan",
        "sqlite:///team.db?busy_timeout_s=inf",
        "sqlite:///team.db?synchronous=maybe",
        "team.db",
        "",
        5,
        b"sqlite:///team.db",
        object(),
        ["sqlite:///team.db"],
        "sqlite:///" + "x" * 20_000,
    ],
    ids=lambda url: repr(url)[:40] if isinstance(url, str) else type(url).__name__,
)
def test_a_url_that_would_name_something_else_is_refused(url: Any, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(UsageError):
        open_log(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["team.db", "a b.db", "team#1.db", "per%cent.db", "what?.db", "müde 計.db"])
def test_a_path_names_its_file(tmp_path: Path, name: str) -> None:
    for given_path, folder in ((Path(name), tmp_path), (tmp_path / "absolute" / name, tmp_path / "absolute")):
        folder.mkdir(exist_ok=True)
        with contextlib.chdir(tmp_path):
            store = open_log(given_path)
        assert isinstance(store, SqliteLog)
        store.close()
        assert (folder / name).exists()


@given(st.binary(min_size=16, max_size=16), NAMES, st.integers(-1, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_a_position_survives_its_text(log_id: bytes, shard: str, offset: int, chain: bytes) -> None:
    position = Position(LogId(log_id), shard, offset, SequenceNumber(max(offset, 0)), Hash(chain))
    assert Position.parse(str(position)) == position


@given(
    st.one_of(
        st.text(st.characters()),
        st.integers(),
        st.none(),
        st.binary(),
        st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists).map(
            lambda document: base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
        ),
    )
)
def test_what_is_no_position_is_refused(token: Any) -> None:
    with pytest.raises(UsageError):
        Position.parse(token)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 9_000, '{"a":' * 2_000, "1" * 5_000, "Infinity"])
def test_text_that_a_parser_stumbles_over_is_no_position(text: str) -> None:
    with pytest.raises(UsageError):
        Position.parse(base64.urlsafe_b64encode(text.encode()).decode())


@pytest.mark.parametrize("offset", [1.0, "1", True, None, -2, 2**63, 10**30])
@pytest.mark.parametrize("member", [2, 3])
def test_a_position_holds_whole_numbers_of_the_format(offset: Any, member: int) -> None:
    parts: list[Any] = ["00" * 16, "w", 1, 1, "00" * 32]
    parts[member] = offset
    with pytest.raises(CcsError):
        Position.parse(base64.urlsafe_b64encode(json.dumps(parts).encode()).decode())

"""Files that hold what agents wrote are made for their owner only, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import UsageError
from ccs_stream.replay.export import run as export
from ccs_stream.replay.source import Source


@pytest.fixture(autouse=True)
def _open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The files of a folder, with their modes."""
    return {each.name: oct(stat.S_IMODE(each.stat().st_mode)) for each in sorted(folder.iterdir())}


def test_no_file_of_a_workspace_can_be_read_by_others(tmp_path: Path) -> None:
    with ccs_stream.connect(
        tmp_path / "team.db",
        workspace="w",
        state_log=tmp_path / "states.jsonl",
        content_audit_log=tmp_path / "audit.jsonl",
        on_error="degrade",
        outbox=tmp_path / "outbox.db",
    ) as workspace:
        workspace.agent("a").write("k", "a secret")
        workspace.agent("b").read("k")
        workspace.flush()
        found = modes(tmp_path)
    assert {"team.db", "team.db-wal", "states.jsonl", "audit.jsonl", "outbox.db"} <= set(found)
    assert set({**found, **modes(tmp_path)}.values()) == {"0o600"}


def test_an_archive_is_private(tmp_path: Path) -> None:
    with ccs_stream.connect(tmp_path / "team.db", workspace="w") as workspace:
        workspace.agent("a").write("k", "a secret")
    source = Source.open(f"sqlite:///{tmp_path}/team.db", "w")
    export(source, tmp_path / "w.avro", force=False, as_json=False)
    source.store.close()
    assert modes(tmp_path)["w.avro"] == "0o600"


def test_another_mode_is_asked_for(tmp_path: Path) -> None:
    store = open_log(f"sqlite:///{tmp_path}/team.db?file_mode=0660")
    with store.turn("w"):
        pass
    assert modes(tmp_path)["team.db"] == "0o660"
    store.close()
    for wrong in ("0", "777", "9", "x"):
        with pytest.raises(UsageError):
            open_log(f"sqlite:///{tmp_path}/other.db?file_mode={wrong}")
    assert not (tmp_path / "other.db").exists()


def test_a_file_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "team.db"
    path.touch()
    path.chmod(0o640)
    with ccs_stream.connect(path, workspace="w") as workspace:
        workspace.agent("a").write("k", 1)
    assert modes(tmp_path)["team.db"] == "0o640"

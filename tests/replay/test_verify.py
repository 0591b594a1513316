"""`ccs-replay verify`: clean logs are clean, and what is wrong is found."""

import sqlite3
from pathlib import Path

import pytest

import ccs_stream
from tests.replay.conftest import Run, read_json


def alter(path: Path, statement: str, *values: object) -> None:
    """Change the file behind our back."""
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def found(run: Run, path: Path, *options: str) -> tuple[int, dict[str, int]]:
    """Exit code and counts by kind."""
    result = run(f"sqlite:///{path}", "verify", "--json", *options)
    return result.returncode, read_json(result)["counts"]


def test_a_lost_update_is_a_finding_unless_losses_are_allowed(path: Path, run: Run) -> None:
    assert found(run, path) == (3, {"lost_update": 1})
    assert found(run, path, "--allow-loss") == (0, {"lost_update": 1})


def test_a_log_without_losses_is_clean(tmp_path: Path, run: Run) -> None:
    with ccs_stream.connect(f"sqlite:///{tmp_path}/clean.db") as workspace:
        agent = workspace.agent("a")
        for number in range(30):
            agent.write(f"k{number % 3}", number)
    result = run(f"sqlite:///{tmp_path}/clean.db", "verify")
    assert result.returncode == 0
    assert result.stdout.startswith("clean: ")
    assert "deliveries are not recorded" in result.stdout


def test_an_altered_record_is_found(path: Path, run: Run) -> None:
    connection = sqlite3.connect(path)
    key, head = connection.execute("SELECT key, head FROM records ORDER BY key LIMIT 1 OFFSET 4").fetchone()
    connection.close()
    altered = bytearray(head)
    altered[-3] ^= 1
    alter(path, "UPDATE records SET head = ? WHERE key = ?", bytes(altered), key)
    code, counts = found(run, path)
    assert code == 3
    assert set(counts) & {"hash_chain", "corrupt_record"}


def test_an_altered_body_is_found(path: Path, run: Run) -> None:
    alter(path, "UPDATE records SET tail = replace(tail, 'step', 'stop') WHERE tail LIKE '%step%'")
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT key, tail FROM records WHERE tail IS NOT NULL").fetchall()
    for key, tail in rows:
        if b"step" in tail:
            connection.execute("UPDATE records SET tail = ? WHERE key = ?", (tail.replace(b"step", b"stop"), key))
    connection.commit()
    connection.close()
    assert found(run, path, "--allow-loss") == (3, {"content": 3, "lost_update": 1})
    assert found(run, path, "--allow-loss", "--no-bodies") == (0, {"lost_update": 1})


def test_a_body_gone_from_the_content_store_is_found(path: Path, run: Run) -> None:
    alter(path, "DELETE FROM contents")
    code, counts = found(run, path)
    assert (code, counts["content"]) == (3, 1)


def test_a_missing_head_is_found(path: Path, run: Run) -> None:
    alter(path, "DELETE FROM records WHERE key = (SELECT min(key) FROM records)")
    assert found(run, path) == (3, {"missing_head": 1})


def test_a_missing_record_in_the_middle_is_found(path: Path, run: Run) -> None:
    alter(path, "DELETE FROM records WHERE key = (SELECT key FROM records ORDER BY key LIMIT 1 OFFSET 6)")
    code, counts = found(run, path)
    assert code == 3
    assert counts["void_record"] > 0


@pytest.mark.parametrize("anchor", ["archive", "token", "sequence"])
def test_a_cut_tail_is_found_against_an_anchor(path: Path, run: Run, tmp_path: Path, anchor: str) -> None:
    source = f"sqlite:///{path}"
    assert run(source, "export", "-o", "anchor.avro").returncode == 0
    info = read_json(run(source, "info", "--json"))
    options = {
        "archive": ["--anchor", "anchor.avro"],
        "token": ["--expect-end", info["end"]],
        "sequence": ["--expect-end", f"{info['events']}:{info['chain_hash']}"],
    }[anchor]
    assert found(run, path, "--allow-loss", *options)[0] == 0
    alter(path, "DELETE FROM records WHERE key = (SELECT max(key) FROM records)")
    assert found(run, path, "--allow-loss")[0] == 0  # by itself, a cut log is a valid, shorter one
    code, counts = found(run, path, "--allow-loss", *options)
    assert (code, counts["cut_tail"]) == (3, 1)


def test_a_log_that_went_on_elsewhere_is_found(path: Path, run: Run, tmp_path: Path) -> None:
    source = f"sqlite:///{path}"
    run(source, "export", "-o", "anchor.avro")
    alter(path, "DELETE FROM records WHERE key = (SELECT max(key) FROM records)")
    alter(path, "DELETE FROM snapshots")
    with ccs_stream.connect(source, workspace="w") as workspace:
        workspace.agent("a").write("k", 1)
    code, counts = found(run, path, "--allow-loss", "--anchor", "anchor.avro")
    assert (code, counts["diverged"]) == (3, 1)


def test_an_anchor_of_another_log_is_refused(path: Path, run: Run, tmp_path: Path) -> None:
    with ccs_stream.connect(f"sqlite:///{tmp_path}/other.db", workspace="w") as workspace:
        workspace.agent("a").write("k", 1)
    run(f"sqlite:///{tmp_path}/other.db", "export", "-o", "other.avro")
    assert run(f"sqlite:///{path}", "verify", "--anchor", "other.avro").returncode == 2


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01])
def test_a_cut_archive_is_an_error(path: Path, run: Run, tmp_path: Path, kept: float) -> None:
    run(f"sqlite:///{path}", "export", "-o", "out.avro")
    archive = tmp_path / "out.avro"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * kept)])
    result = run("file:out.avro", "verify")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")

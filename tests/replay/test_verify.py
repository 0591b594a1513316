"""`ccs-replay verify`: clean logs are clean, and what is wrong is found."""

import json
import sqlite3
import sys
import threading
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
    assert "; 30 deliveries checked)" in result.stdout
    result = run(f"sqlite:///{tmp_path}/clean.db", "verify", "--no-deliveries")
    assert "deliveries not checked" in result.stdout


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


# Who was given what.


def test_c15_deliveries_cut_at_their_end_are_found(path: Path, run: Run) -> None:
    code, counts = found(run, path, "--allow-loss")
    assert (code, counts) == (0, {"lost_update": 1})
    alter(path, "DELETE FROM deliveries WHERE id = (SELECT max(id) FROM deliveries)")
    assert found(run, path, "--allow-loss") == (3, {"cut_tail": 1, "lost_update": 1})


def test_a_missing_delivery_is_a_gap(path: Path, run: Run) -> None:
    alter(path, "UPDATE meta SET value = value - 1 WHERE name LIKE 'deliveries%'")
    alter(path, "DELETE FROM deliveries WHERE id = 3")
    assert found(run, path) == (3, {"delivery_gap": 1, "lost_update": 1})


def test_c15_a_log_cut_at_its_end_is_found_by_the_deliveries(path: Path, run: Run) -> None:
    alter(path, "DELETE FROM records WHERE key > (SELECT max(key) - 4 FROM records)")
    code, counts = found(run, path, "--allow-loss")
    assert code == 3
    assert counts["cut_tail"] >= 1


def test_threads_that_read_and_write_are_never_given_what_was_replaced(tmp_path: Path, run: Run) -> None:
    """Reads without a lock say at which sequence they were right, while others write; the log agrees with all."""
    url = f"sqlite:///{tmp_path}/busy.db"
    with ccs_stream.connect(url) as workspace:

        def work(name: str) -> None:
            agent = workspace.agent(name)
            for number in range(60):
                agent.write(f"k{number % 2}", number)
                for key in ("k0", "k1", "k0", "none"):
                    agent.read(key)
                if number % 20 == 19:
                    agent.delete("k1")
                workspace.read_all(["k0", "k1"], agent=name)

        threads = [threading.Thread(target=work, args=(f"agent {number % 2}",)) for number in range(6)]
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads meet everywhere
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)
    result = run(url, "verify", "--json", "--allow-loss")
    document = read_json(result)
    assert document["deliveries"] == 6 * 60 * 7
    assert (result.returncode, document["violations"]) == (0, 0), document["findings"][:3]


def test_deliveries_are_printed_one_a_line(path: Path, run: Run) -> None:
    url = f"sqlite:///{path}"
    lines = run(url, "deliveries", "--artifact", "shared/plan").stdout.splitlines()
    assert [("planner" in line, "reviewer" in line) for line in lines] == [
        *((True, False), (False, True), (True, False), (False, True)),
    ]
    told = [json.loads(line) for line in run(url, "deliveries", "--agent", "reviewer", "--json").stdout.splitlines()]
    assert {each["agent"] for each in told} == {"reviewer"}
    assert [(each["key"], each["source"], each["version"]) for each in told] == [
        ("plan", "fetch", 1),
        ("plan", "write", 3),
        ("x", "fetch", 1),
    ]

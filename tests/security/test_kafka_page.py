"""docs/kafka.md says what the program has: its settings, its rights by role, its numbers. No broker is needed."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ccs_stream.cli.kafka import doctor_broker
from ccs_stream.coordinator.kafka import health_server
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from tests.security.secured import TABLE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "kafka.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose heading begins so, row by row."""
    lines = PAGE[PAGE.index(f"\n| {heading}") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


def test_every_option_of_the_url_is_there_with_its_default() -> None:
    said = {row[0].strip("`"): row[1].strip("`") for row in rows("option")[1:]}
    fields = {name: field for name, field in KafkaSettings.model_fields.items() if name in said}
    assert said.keys() == KafkaSettings.model_fields.keys() - {"bootstrap_servers", "client"}
    for name, field in fields.items():
        shown = "" if field.default is None else str(field.default).removesuffix(".0")
        assert said[name] == shown, name


def test_the_rights_are_those_that_were_tried() -> None:
    head, *body = rows("topic or group")
    said: dict[str, dict[str, set[str]]] = {role: {} for role in head[1:]}
    for row in body:
        where = re.sub(r"^(group )?`ccs\.(.*)`$", r"\2", row[0])
        for role, cell in zip(head[1:], row[1:], strict=True):
            if cell:
                said[role][where] = set(cell.split(", "))
    tried = {
        role: {where: {each.name.title().replace("_C", "C") for each in of} for where, of in rights.items()}
        for role, rights in TABLE.items()
    }
    assert said == tried


def test_doctor_asks_for_the_same() -> None:
    asked = {
        role.role: {where.removeprefix("ccs."): set(of) for where, of in role.rights.items()}
        for role in doctor_broker.roles(Clients(KafkaSettings.parse("kafka://h")))
    }
    assert asked == {role: {where: set(of) for where, of in TABLE[role].items()} for role in asked}
    assert len(asked) == 3


def test_every_metric_is_there_and_no_other() -> None:
    shard: dict[str, Any] = {"partition": 0, "role": "leading", "refused": {"reserved": 1}}
    shard |= {"dropped": {"stale_number": 1}, "void": {"foreign": 1}}
    numbers = ("epoch", "offset", "lag", "waiting", "workspaces", "artifacts", "seconds_to_lead")
    shard |= dict.fromkeys((*numbers, "decisions", "events", "claims"), 0)
    exposed = health_server.metrics({"partitions": [shard], "garbage_commands": 0, "ready": True})
    names = {line.partition("{")[0].split()[0] for line in exposed.splitlines() if not line.startswith("#")}
    said = {name for row in rows("metric")[1:] for name in re.findall(r"`(ccs_\w+)", row[0])}
    assert said == names
    used = {name for row in rows("alarm")[1:] for name in re.findall(r"\b(ccs_\w+)", row[1])}
    assert used <= names


def test_every_endpoint_is_there() -> None:
    said = {row[0].strip("`") for row in rows("endpoint")[1:]}
    served: list[str] = []
    handler = SimpleNamespace(path="/", service=None, _say=lambda code, text, *_: served.append(text))
    original = health_server.status
    health_server.status = lambda _: {}  # type: ignore[assignment]
    try:
        health_server._Handler.do_GET(handler)  # type: ignore[arg-type]
    finally:
        health_server.status = original
    assert said == set(re.findall(r"/\w+", served[0]))

"""What may be asked for as telemetry, and that no exporter can do a store any harm."""

import logging
import multiprocessing
import subprocess
import sys
import threading
from typing import Any

import pytest

from ccs_stream import UsageError
from ccs_stream.adapters.telemetry import (
    Exporter,
    LangSmithExporter,
    OpenTelemetryExporter,
    Telemetry,
    TelemetryExporter,
    exporter_of,
)
from ccs_stream.projections.metric_events import ObservedOperation, StoreMetricEvent
from tests.adapters.telemetry.observing import HIT, MISS, PUT, observed

LONG_S = 60.0


class Keeping(TelemetryExporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[StoreMetricEvent] = []

    def on_event(self, event: StoreMetricEvent) -> None:
        self.told.append(event)


class Noting(Exporter):
    """Keeps what it is told, by whom, and may be told to misbehave."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.threads: set[int] = set()
        self.raises = False
        self.hangs: threading.Event | None = None

    def capture(self) -> object:
        if self.raises:
            raise RuntimeError("no context")
        return threading.get_ident()

    def export(self, observed: ObservedOperation, captured: object) -> None:
        self.threads.add(threading.get_ident())
        if self.hangs is not None:
            self.hangs.wait()
        if self.raises:
            raise RuntimeError("the collector is away")
        self.told.append((observed.event.operation, captured))

    def on_degraded(self, *, degraded: bool) -> None:
        self.told.append(degraded)

    def close(self) -> None:
        self.told.append("closed")


# What may be asked for.


def test_nothing_is_asked_for() -> None:
    assert exporter_of(None) is None


@pytest.mark.parametrize(("name", "kind"), [("opentelemetry", OpenTelemetryExporter), ("langsmith", LangSmithExporter)])
def test_exporters_are_had_by_name(name: str, kind: type) -> None:
    assert type(exporter_of(name)) is kind


def test_an_exporter_is_taken_as_it_is() -> None:
    exporter = OpenTelemetryExporter()
    assert exporter_of(exporter) is exporter


class Plain:
    """Of no class of ours, with a method of that name."""

    def __init__(self) -> None:
        self.told: list[StoreMetricEvent] = []
        self.on_event = self.told.append


@pytest.mark.parametrize("kind", [Keeping, Plain])
def test_whatever_has_on_event_is_told_of_each_event(kind: type[Any]) -> None:
    custom = kind()
    exporter = exporter_of(custom)
    assert exporter is not None
    telemetry = Telemetry(exporter)
    for each in (PUT, MISS, HIT):
        telemetry.export(observed(each), telemetry.capture())
    assert telemetry.close(LONG_S)
    assert custom.told == [PUT, MISS, HIT]


@pytest.mark.parametrize("option", ["zipkin", "", 7, object(), True])
def test_what_is_no_exporter_is_a_wrong_call_that_says_what_to_type(option: object) -> None:
    with pytest.raises(UsageError, match="'opentelemetry', 'langsmith', a TelemetryExporter or None") as caught:
        exporter_of(option)
    assert isinstance(caught.value, TypeError)  # what agent-coherence raises


def test_a_class_is_no_exporter() -> None:
    with pytest.raises(UsageError, match=r"Keeping\(\.\.\.\)"):
        exporter_of(Keeping)


@pytest.mark.parametrize(("name", "extra"), [("opentelemetry", "otel"), ("langsmith", "langsmith")])
def test_a_missing_package_says_what_to_install(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"ccs_stream.adapters.telemetry.{name}", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'ccs-stream\[{extra}\]'"):
        exporter_of(name)


def test_no_sdk_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, ccs_stream.adapters.telemetry; print({'langsmith', 'opentelemetry'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"


# What exporters cannot do.


def test_an_exporter_is_told_in_order_in_a_thread_aside_with_what_was_captured_by_the_caller() -> None:
    exporter = Noting()
    telemetry = Telemetry(exporter)
    telemetry.export(observed(PUT), telemetry.capture())
    telemetry.degraded(degraded=True)
    telemetry.export(observed(MISS), telemetry.capture())
    telemetry.degraded(degraded=False)
    assert telemetry.close(LONG_S)
    here = threading.get_ident()
    assert exporter.told == [("put", here), True, ("get", here), False, "closed"]
    assert here not in exporter.threads


def test_what_raises_is_counted_logged_once_and_told_of_what_comes_next(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Noting()
    telemetry = Telemetry(exporter)
    exporter.raises = True
    with caplog.at_level(logging.ERROR):
        for each in (PUT, MISS, HIT):
            assert telemetry.capture() is None
            telemetry.export(observed(each), None)
        assert telemetry.flush(LONG_S)
    exporter.raises = False
    telemetry.export(observed(MISS), "here")
    assert telemetry.close(LONG_S)
    assert telemetry.failed == 3 + 3
    assert exporter.told == [("get", "here"), "closed"]
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 2  # one of each kind


def test_nobody_waits_for_what_hangs() -> None:
    exporter = Noting()
    exporter.hangs = threading.Event()
    telemetry = Telemetry(exporter, waiting_max=4)
    for _ in range(20):
        telemetry.export(observed(HIT), None)
    assert telemetry.dropped >= 20 - 4 - 1  # one is being told, four wait
    assert telemetry.close(0.01) is False
    exporter.hangs.set()


def _told_in_a_child(telemetry: Telemetry, exporter: Noting, answers: Any) -> None:
    telemetry.export(observed(HIT), "in the child")
    closed = telemetry.close(LONG_S)
    answers.put((closed, exporter.told))


def test_a_fork_begins_anew() -> None:
    exporter = Noting()
    telemetry = Telemetry(exporter)
    telemetry.export(observed(PUT), "before")
    assert telemetry.flush(LONG_S)
    forking = multiprocessing.get_context("fork")
    answers = forking.Queue()
    child = forking.Process(target=_told_in_a_child, args=(telemetry, exporter, answers), daemon=True)
    child.start()
    assert answers.get(timeout=LONG_S) == (True, [("put", "before"), ("get", "in the child"), "closed"])
    child.join()
    assert telemetry.close(LONG_S)
    assert exporter.told == [("put", "before"), "closed"]

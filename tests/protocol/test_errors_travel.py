"""Every exception of ours survives pickle and copy, and arrives with its fields."""

import copy
import datetime as dt
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream import VersionConflict
from ccs_stream.protocol.errors import CorruptRecord, OutcomeUnknown, Reclaimed, Refused
from ccs_stream.protocol.events import RefusalReason
from ccs_stream.protocol.ids import Fence, Version
from ccs_stream.protocol.refusal import Refusal


def every_exception() -> list[type[BaseException]]:
    """All exceptions that the package defines."""
    for module in pkgutil.walk_packages(ccs_stream.__path__, "ccs_stream."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError:
                continue  # of an extra that is not installed
    found: set[type[BaseException]] = set()
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("ccs_stream."):
                found.add(kind)
    return sorted(found, key=lambda kind: kind.__qualname__)


EXCEPTIONS = every_exception()
TRAVEL: list[Callable[[BaseException], BaseException]] = [
    *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6)),
    copy.copy,
    copy.deepcopy,
]


def made(kind: type[BaseException]) -> BaseException:
    """An exception of this class, with fields."""
    if issubclass(kind, Refused):
        error: BaseException = kind("m", reason="why", current_version=Version(3), fence=Fence(4))
    elif issubclass(kind, CorruptRecord):
        error = kind("m", position="offset 9")
    elif issubclass(kind, Refusal):
        error = kind(RefusalReason.RESERVED, "m")
    else:
        error = kind("m")
    for name in ("current_value", "trigger", "at", "anything"):
        setattr(error, name, dt.datetime.now(dt.UTC))
    return error


def test_they_are_found() -> None:
    assert len(EXCEPTIONS) > 35
    assert {VersionConflict, OutcomeUnknown, Refusal} <= set(EXCEPTIONS)


@pytest.mark.parametrize("travel", TRAVEL)
@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_an_exception_arrives_with_its_fields(kind: type[BaseException], travel: Callable[..., BaseException]) -> None:
    error = made(kind)
    arrived = travel(error)
    assert type(arrived) is kind
    assert (str(arrived), arrived.args, vars(arrived)) == (str(error), error.args, vars(error))
    assert getattr(arrived, "retryable", None) == getattr(error, "retryable", None)


def test_an_unknown_outcome_travels_without_the_way_to_wait_for_it() -> None:
    error = OutcomeUnknown("m", later=lambda _: "answer")
    assert copy.copy(error).outcome(0) == "answer"
    assert copy.deepcopy(error).outcome(0) == "answer"
    assert pickle.loads(pickle.dumps(error)).outcome(0) is None


def test_a_reclaim_says_why_elsewhere() -> None:
    error = Reclaimed("m", reason="reclaimed")
    error.trigger, error.at = "expired", dt.datetime.now(dt.UTC)
    arrived = pickle.loads(pickle.dumps(error))
    assert (arrived.trigger, arrived.at) == (error.trigger, error.at)


def conflict(url: str) -> None:
    """Meet a conflict; runs in a process of its own."""
    with ccs_stream.connect(url, workspace="w") as workspace:
        workspace.agent("a").compare_and_set("plan", {"n": 2}, expected=7)


def test_a_pool_gets_the_conflict_of_its_worker_and_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/team.db"
    with ccs_stream.connect(url, workspace="w") as workspace:
        workspace.agent("a").write("plan", {"n": 1})
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(VersionConflict) as met:
            pool.submit(conflict, url).result(60)
        assert (met.value.current_version, met.value.current_value) == (1, {"n": 1})
        assert pool.submit(abs, -4).result(60) == 4

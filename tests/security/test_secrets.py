"""A password is in nothing that is printed, logged, shown or listed, whatever goes right or wrong."""

import contextlib
import json
import logging
import pickle
import subprocess
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.cli import main
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.protocol.errors import CcsError
from ccs_stream.replay.app import cli as replay
from ccs_stream.testing.broker import Broker
from tests.kafka import CoordinatorProcess
from tests.security.secured import PASSWORD, allow, bindings, scram

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def url(secured: Broker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log, with a file that says as whom: one who may do what clients and coordinators do."""
    prefix = f"secrets-{uuid.uuid4().hex[:8]}"
    topics.create(Clients(KafkaSettings.parse(f"kafka://{secured.bootstrap_servers}?prefix={prefix}")), partitions=1)
    allow(secured, {*bindings(prefix, "client", "client"), *bindings(prefix, "client", "coordinator")})
    file = tmp_path_factory.mktemp("secrets") / "client.properties"
    # librdkafka's own most talkative log about connections and settings.
    settings = {**scram("client"), "debug": "conf,security,broker,feature"}
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")
    return f"kafka://{secured.listener('SCRAM')}?prefix={prefix}&config={file}&timeout_s=10"


@contextlib.contextmanager
def shown(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Takes what a test finds; to it comes what was logged, at every level. None of it may hold the password."""
    found: list[str] = []
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "ccs_stream.librdkafka"):
        yield found
    logged = [each.getMessage() for each in caplog.records if each.name == "ccs_stream.librdkafka"]
    assert any("sasl.password = [redacted]" in each for each in logged)
    for text in (*found, caplog.text):
        for secret in (PASSWORD, repr(PASSWORD)[1:-1], json.dumps(PASSWORD)[1:-1]):
            assert secret not in text


def test_what_objects_say_of_themselves(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with shown(caplog) as everything:
        settings = KafkaSettings.parse(url)
        everything += [repr(settings), str(settings), f"{settings}", str(settings.model_dump()), settings.display_url]
        everything.append(settings.model_dump_json(exclude={"client": {"oauth_cb"}}))
        with ccs_stream.connect(url, workspace="w") as workspace:
            agent = workspace.agent("a")
            written = agent.write("k", 1)
            everything += [repr(each) for each in (workspace, workspace._store, workspace.coordinator, agent, written)]
            everything.append(repr(vars(workspace._store)))
            everything.append(str(written.position))
        store = CoherentStore(url, workspace="w")
        everything.append(repr(store))
        store.close()


def test_errors_and_the_variables_around_them(url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with shown(caplog) as everything:
        for settings in ({"sasl.mechanism": "none"}, {"no.such.setting": "x"}, {"security.protocol": PASSWORD}):
            with pytest.raises(CcsError) as caught:
                Clients(KafkaSettings.parse(url, settings)).admin.poll(0)
            frames = [line for line in _with_variables(caught.value) if "settings = {'security.protocol'" not in line]
            everything += [str(caught.value), repr(caught.value), *frames]
        with pytest.raises(CcsError) as caught:
            ccs_stream.connect(url.replace("&config", "x&config"), workspace="w")  # a log that is not there
        everything.extend(_with_variables(caught.value))


def _with_variables(error: BaseException) -> list[str]:
    """A traceback as error trackers record it: with the local variables, those of the test itself left out."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return [
        line
        for frame in told.stack
        if not frame.filename.endswith("test_secrets.py")
        for line in (frame.line or "", *(f"{name} = {value}" for name, value in (frame.locals or {}).items()))
        if not line.startswith("client = {'security.protocol'")
    ]


def test_commands_and_processes(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with shown(caplog) as everything:
        coordinator = CoordinatorProcess(url).wait_ready()
        try:
            with ccs_stream.connect(f"{url}&coordinator=remote", workspace="w") as workspace:
                workspace.agent("a").write("k", 2)
            everything += [coordinator.get(path) for path in ("/status", "/metrics", "/healthz", "/readyz")]
            listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
            mine = [line for line in listed.splitlines() if url in line]
            assert mine
            everything.extend(mine)
            for arguments in (
                ["doctor", url],
                ["doctor", url, "--json"],
                ["topics", "check", url],
                ["topics", "describe", url, "--json"],
                ["topics", "create", f"{url}&unknown=1"],
            ):
                done = CliRunner().invoke(main, arguments)
                everything += [done.output, done.stderr, repr(done.exception)]
            done = CliRunner().invoke(replay, ["-w", "w", url, "info"])
            assert done.exit_code == 0, done.output
            everything.append(done.output)
            everything.append(coordinator.said)
        finally:
            coordinator.stop()


def test_settings_do_not_travel_by_pickle_unseen(url: str) -> None:
    # Whoever pickles settings for another process takes the password along: it is no secret that it is in there.
    assert PASSWORD.encode() in pickle.dumps(KafkaSettings.parse(url))

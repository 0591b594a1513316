"""What is wrong from outside, one by one: a clear error each, which names what to change and comes in bounded time."""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

import ccs_stream
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.appender import Appender
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import ConnectionHealth
from ccs_stream.log.kafka.settings import FIXED, KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.port import LOG_FORMAT
from ccs_stream.protocol.commands import Join
from ccs_stream.protocol.errors import (
    LogDiverged,
    LogMissing,
    LogUnavailable,
    NewerFormat,
    RefusedByBroker,
    TooLarge,
    UsageError,
)
from ccs_stream.protocol.ids import CommandNumber, LogId, Micros, SessionId
from ccs_stream.protocol.records import LogOpened
from ccs_stream.testing.broker import Broker
from ccs_stream.testing.clock import ManualClock
from tests.kafka import make_topics

TIMEOUT_S = 2
GRACE_S = 3
SECRET = "hunter2"  # as it is meant to be: in no message


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.1f} s"


def settings(url: str = "kafka://127.0.0.1:9092", **client: Any) -> KafkaSettings:
    return KafkaSettings.parse(url, client)


# Where nobody answers.


@contextlib.contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A port where something else listens: it says `answer` and hangs up, or with None says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for each in kept:
            each.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def error_at(port: int, host: str = "127.0.0.1") -> LogUnavailable:
    with within(TIMEOUT_S + GRACE_S), pytest.raises(LogUnavailable) as caught:
        ccs_stream.connect(f"kafka://{host}:{port}?timeout_s={TIMEOUT_S}", workspace="w")
    return caught.value


def test_a_port_without_a_listener() -> None:
    port = closed_port()
    said = str(error_at(port))
    assert f"127.0.0.1:{port}" in said
    assert "Connection refused" in said
    assert "check that it runs, and the address in the URL" in said


def test_a_host_that_does_not_exist() -> None:
    said = str(error_at(9092, "no-such-host.invalid"))
    assert "no-such-host.invalid" in said
    assert "there is no host of this name" in said


def test_a_port_that_hangs_up_at_once() -> None:
    with listener(b"") as port:
        said = str(error_at(port))
    assert "check security.protocol" in said


def test_a_port_that_says_nothing() -> None:
    with listener(None) as port:
        assert "no broker answers" in str(error_at(port))


def test_a_port_that_speaks_something_else() -> None:
    with listener(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as port:
        assert "what answers at this port is no Kafka" in str(error_at(port))


# Wrong URLs.


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://h?workspce=w", "unknown option 'workspce' in 'kafka://h'; did you mean 'workspace'"),
        ("kafka://h?acks=1", "unknown option 'acks' in 'kafka://h'; known: workspace, prefix"),
        ("kafka://h?timeout_s=1&timeout_s=2", "'timeout_s' is given twice"),
        ("kafka://h?timeout_s=soon", "timeout_s: Input should be a valid number"),
        ("kafka://h?timeout_s=0", "timeout_s: Input should be greater than 0"),
        ("kafka://h?session_timeout_s=0.1", "session_timeout_s: Input should be greater than or equal to 1"),
        ("kafka://h?coordinator=embeded", "coordinator: Input should be 'embedded' or 'remote'"),
        ("kafka://h?prefix=a b", "prefix: String should match pattern"),
        ("kafka://h?workspace=", "workspace: String should have at least 1 character"),
        ("kafka://h?workspace", "workspace: String should have at least 1 character"),
        ("kafka://h?workspace=a#b", "write %23 for #"),
        ("kafka://h:0", "'h:0' in 'kafka://h:0' is no HOST:PORT"),
        ("kafka://h:99999", "is no HOST:PORT"),
        ("kafka://h:9092,:9093", "':9093'"),
        ("kafka://h:9092,,k", "'' in"),
        ("kafka://", "write kafka://HOST:9092?workspace=NAME"),
        ("kafka://h/topic", "write kafka://HOST:9092?workspace=NAME"),
    ],
)
def test_a_text_that_is_no_url(url: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(url)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"kafka://user:{SECRET}@h:9092",
        f"kafka://user:{SECRET}@h:9092,user:{SECRET}@k:9092",
        f"kafka://user:{SECRET}/x@h:9092",
        f"kafka://user:{SECRET}?x@h:9092",
        f"kafka://user:{SECRET}#x@h:9092",
        f"kafka://user:[{SECRET}@h:9092",
        f"kafka://user:{SECRET}?a=b@h:9092",
        f"kafka://h:9092?sasl.password={SECRET}",
        f"kafka://h:9092?workspace=w&password={SECRET}",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(url)
    assert SECRET not in str(caught.value)
    assert "config=FILE" in str(caught.value)


# Settings of librdkafka.


@pytest.mark.parametrize("name", FIXED)
def test_a_setting_that_a_promise_rests_on_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(**{name: SECRET})
    assert f"the setting {name!r} of librdkafka cannot be chosen: {FIXED[name]}" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_it_is_refused_from_a_file_and_from_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("acks=1\n")
    with pytest.raises(UsageError, match="'acks' of librdkafka cannot be chosen"):
        settings(f"kafka://h?config={file}")
    monkeypatch.setenv("CCS_KAFKA_GROUP_ID", "mine")
    with pytest.raises(UsageError, match=r"'group\.id' of librdkafka cannot be chosen"):
        settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sasl.pasword", SECRET, 'No such configuration property: "sasl.pasword"'),
        ("security.protocol", SECRET, 'invalid value for configuration property "security.protocol"'),
        ("sasl.jaas.config", SECRET, "Java JAAS configuration is not supported"),
        ("linger.ms", SECRET, "configuration property"),
        ("compression.type", "lzma", "configuration property"),
    ],
)
def test_a_setting_that_librdkafka_does_not_take(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Clients(settings(**{name: value})).producer()
    assert said in str(caught.value)
    assert "the settings of kafka://127.0.0.1:9092" in str(caught.value)
    assert value not in str(caught.value)


def test_settings_that_do_not_fit_together() -> None:
    tls = {"security.protocol": "SSL", "ssl.ca.location": "/no/such/file"}
    with pytest.raises(UsageError, match=r"ssl\.ca\.location failed"):
        Clients(settings(**tls)).producer()
    sasl = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}
    with pytest.raises(UsageError, match=r"sasl\.username and sasl\.password must be set"):
        Clients(settings(**sasl)).producer()
    with pytest.raises(UsageError) as caught:
        Clients(settings(**{"security.protocol": "SASL_SSL", "sasl.mechanism": SECRET})).producer()
    assert "sasl.mechanism" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"sasl.username=u\n{SECRET}\n".encode(), "line 2"),
        (f"# comment\n\nsasl.password {SECRET} = x\n".encode(), "line 3"),
        (f"={SECRET}\n".encode(), "line 1"),
        (f"{SECRET.upper()}==\n".encode(), "line 1"),
        (f"sasl.password={SECRET}\nsasl.password={SECRET}\n".encode(), "line 2"),
        (b"sasl.password=\xff\xfe" + SECRET.encode(), "is not in UTF-8"),
    ],
)
def test_a_file_that_is_no_properties_file(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        settings(f"kafka://h?config={file}")
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert SECRET not in str(caught.value).lower()


def test_a_properties_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        settings(f"kafka://h?config={tmp_path / 'none'}")
    with pytest.raises(UsageError, match="Is a directory"):
        settings(f"kafka://h?config={tmp_path}")


def test_a_properties_file_as_windows_writes_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_bytes(b"\xef\xbb\xbfsasl.username = u \r\n\r\n! old\r\nsasl.password=a=b\r\n")
    read = settings(f"kafka://h?config={file}").librdkafka()
    assert (read["sasl.username"], read["sasl.password"]) == ("u", "a=b")


# Names and values.


@pytest.mark.kafka
@pytest.mark.parametrize(
    "name",
    ["ünï-コード-🙂", "a/b?c=d&e#f%20@g", "\x00\n\t\u202e", "n" * 300, " ", "[red]$(id)`{x}"],
    ids=["unicode", "of URLs", "control", "300 long", "a space", "of shells"],
)
def test_any_text_names_a_workspace(name: str, small_log: str) -> None:
    with ccs_stream.connect(small_log, workspace=name) as workspace:
        workspace.agent("a").write("k", name)
        reading = workspace.agent("b").read("k")
        assert reading is not None
        assert reading.value == name


@pytest.mark.kafka
def test_a_name_that_is_no_text_names_no_workspace(small_log: str) -> None:
    with pytest.raises(UsageError, match="non-empty text"):
        ccs_stream.connect(small_log, workspace="")
    with pytest.raises(UsageError, match="lone surrogate"):
        ccs_stream.connect(small_log, workspace="\ud800")


@pytest.mark.kafka
def test_a_value_that_the_topic_does_not_take(kafka_broker: Broker, kafka_prefix: str) -> None:
    url = f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}&timeout_s=10"
    make_topics(url, 1)
    clients = Clients(KafkaSettings.parse(url))
    small = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, clients.names.content, incremental_configs=[small])
    clients.admin.incremental_alter_configs([resource])[resource].result()
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent("a")
        with within(10), pytest.raises(RefusedByBroker) as caught:
            agent.write("k", "x" * 1_000_000)
        assert clients.names.content in str(caught.value)
        assert "raise max.message.bytes of the topic" in str(caught.value)
        assert agent.write("k", "small").version == 1


@pytest.mark.kafka
def test_a_command_as_large_as_its_topic_takes_is_refused_and_later_commands_are_served(small_log: str) -> None:
    # Its refusal names the agent, too: with its envelope it is larger than the command, and must still fit.
    leads = ccs_stream.connect(small_log, workspace="poison")
    with leads, ccs_stream.connect(f"{small_log}&coordinator=remote&timeout_s=10", workspace="poison") as workspace:
        for size in (999_600, 999_700, 999_750, 999_800, 999_850):
            # Not by way of an agent, which would be told at once that its name is too long.
            session = SessionId(uuid.uuid4().bytes)
            joining = Join(session_id=session, number=CommandNumber(1), agent="a" * size)
            with contextlib.suppress(TooLarge):
                assert workspace.coordinator.execute(joining).refusal is not None
            assert workspace.agent("b").write("k", size).version is not None


# Logs that are not what the program takes them for.


@pytest.fixture(scope="module")
def small_log(kafka_broker: Broker) -> str:
    url = f"kafka://{kafka_broker.bootstrap_servers}?prefix=bad-input-{time.time_ns()}"
    make_topics(url, 1)
    return url


@pytest.fixture
def url(kafka_broker: Broker, kafka_prefix: str) -> str:
    return f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}&timeout_s=5"


@pytest.mark.kafka
def test_a_log_that_was_never_made(url: str, kafka_prefix: str) -> None:
    with within(5 + GRACE_S), pytest.raises(LogMissing) as caught:
        ccs_stream.connect(url, workspace="w")
    assert f"{kafka_prefix}.log.v1" in str(caught.value)
    assert "ccs-stream topics create kafka://" in str(caught.value)


@pytest.mark.kafka
def test_topics_that_got_other_numbers_of_partitions(url: str, kafka_prefix: str) -> None:
    make_topics(url, 2)
    settled = KafkaSettings.parse(url)
    admin = Clients(settled).admin
    with pytest.raises(UsageError, match="has 2 partitions, and 3 were asked for"):
        topics.create(Clients(settled), partitions=3)
    name = f"{kafka_prefix}.commands.v1"
    admin.create_partitions([NewPartitions(name, 4)])[name].result()
    with within(5 + GRACE_S), pytest.raises(LogDiverged) as caught:
        ccs_stream.connect(url, workspace="w")
    assert f"{name} has 4 partitions, and the log was opened with 2" in str(caught.value)


@pytest.mark.kafka
def test_a_log_of_a_later_release(url: str, kafka_prefix: str) -> None:
    settled = KafkaSettings.parse(url)
    clients = Clients(settled)
    name = f"{kafka_prefix}.log.v1"
    made = topics._create(clients, list(topics.required_topics(clients)), 1, 1)
    assert len(made) == 5
    described = topics._until_described(clients)[name]
    opened = LogOpened(
        log_id=LogId(described.topic_id), shards=1, partitioner="murmur2", format=LOG_FORMAT + 1, opened_at=Micros(1)
    )
    Appender(clients).append(name, 0, [(None, DEFAULT_CODEC.encode_record(opened))])
    for open_it in (lambda: ccs_stream.connect(url, workspace="w"), lambda: KafkaLog(settled, read_only=True)):
        with within(5 + GRACE_S), pytest.raises(NewerFormat, match=f"log format {LOG_FORMAT + 1}.*upgrade ccs-stream"):
            open_it()


@pytest.mark.kafka
def test_a_topic_that_something_else_writes_to(url: str, kafka_prefix: str) -> None:
    clients = Clients(KafkaSettings.parse(url))
    topics._create(clients, list(topics.required_topics(clients)), 1, 1)
    topics._until_described(clients)
    Appender(clients).append(f"{kafka_prefix}.log.v1", 0, [(None, b"hello")])
    with pytest.raises(LogDiverged, match="something else writes to this topic"):
        ccs_stream.connect(url, workspace="w")


def test_an_address_where_nothing_listens_is_not_waited_for_until_the_time_out() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LogUnavailable, match=f"{port}.*refused.*the address in the URL"):
        ccs_stream.connect(f"kafka://127.0.0.1:{port}?timeout_s=3600", workspace="w")


def test_a_broker_that_is_away_for_a_while_is_waited_for() -> None:
    clock = ManualClock()
    health, down = ConnectionHealth("ccs", clock.monotonic), KafkaError(KafkaError._ALL_BROKERS_DOWN)
    for _ in range(6):
        health.failed(down)
        assert not health.is_permanent, "it may only start"
        clock.advance(1.0)
    clock.advance(2.0)
    permanent = [health.is_permanent]  # the last attempt was not refused
    health.failed(down)
    permanent.append(health.is_permanent)

    health.recovered()
    for _ in range(10):
        clock.advance(1.0)
        health.failed(down)
    permanent.append(health.is_permanent)  # it was there before: it comes back
    assert permanent == [False, True, False]

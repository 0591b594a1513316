"""Saying who one is: TLS, certificates, SCRAM, tokens; by file, environment or program; and saying it wrong.

Each wrong way is a clear error, and those that waiting does not help come long before the time-out.
"""

import base64
import json
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, LogUnavailable, NotAuthorised
from ccs_stream.testing.broker import Broker
from tests.security.secured import PASSWORD, Certificates, allow, bindings, scram

pytestmark = pytest.mark.kafka

TIMEOUT_S = 10
AT_ONCE_S = 6
"""Far from the time-out, also where two processors have a lot to do."""


@pytest.fixture(scope="module")
def prefix(secured: Broker) -> str:
    """A log on which the user and the certificate `client` may do what embedded coordinators and clients need."""
    prefix = f"connections-{uuid.uuid4().hex[:8]}"
    topics.create(Clients(KafkaSettings.parse(f"kafka://{secured.bootstrap_servers}?prefix={prefix}")), partitions=1)
    for user in ("client", "CN=client"):
        allow(secured, {*bindings(prefix, user, "client"), *bindings(prefix, user, "coordinator")})
    return prefix


def url_of(secured: Broker, listener: str, prefix: str, options: str = "") -> str:
    return f"kafka://{secured.listeners[listener]}?prefix={prefix}&timeout_s={TIMEOUT_S}{options}"


def works(url: str, kafka: dict[str, Any] | None = None) -> None:
    """Write and read, leading by oneself where nobody else does."""
    with ccs_stream.connect(url, workspace="w", kafka=kafka) as workspace:
        value = uuid.uuid4().hex
        workspace.agent("a").write("k", value)
        reading = workspace.agent("b").read("k")
        assert reading is not None
        assert reading.value == value


def refused(error: type[CcsError], url: str, kafka: dict[str, Any], *, at_once: bool = True) -> str:
    """What is said of an attempt that must fail."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        ccs_stream.connect(url, workspace="w", kafka=kafka)
    took = time.monotonic() - began
    assert took < (AT_ONCE_S if at_once else TIMEOUT_S + 3)
    everything = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    kept = everything.replace(repr(kafka), "")  # what the caller itself holds is its own affair
    assert PASSWORD not in str(caught.value)
    assert not [
        line for line in kept.splitlines() if PASSWORD in line and "kafka = " not in line and "client = " not in line
    ]
    return str(caught.value)


# TLS.


def tls(certificates: Certificates) -> dict[str, Any]:
    return {"security.protocol": "SSL", "ssl.ca.location": str(certificates.authority)}


def own(certificates: Certificates) -> dict[str, Any]:
    return {
        "ssl.certificate.location": str(certificates.client),
        "ssl.key.location": str(certificates.client_key),
    }


def test_one_way_tls(secured: Broker, prefix: str, certificates: Certificates) -> None:
    works(url_of(secured, "TLS", prefix), tls(certificates))


def test_certificates_on_both_sides(secured: Broker, prefix: str, certificates: Certificates) -> None:
    works(url_of(secured, "MTLS", prefix), {**tls(certificates), **own(certificates)})


def test_a_certificate_of_an_unknown_authority(secured: Broker, prefix: str) -> None:
    said = refused(NotAuthorised, url_of(secured, "TLS", prefix), {"security.protocol": "SSL"})
    assert "TLS failed" in said
    assert "check ssl.ca.location" in said


def test_no_certificate_where_one_is_asked_for(secured: Broker, prefix: str, certificates: Certificates) -> None:
    said = refused(NotAuthorised, url_of(secured, "MTLS", prefix), tls(certificates))
    assert "check ssl.certificate.location and ssl.key.location" in said


def test_tls_where_none_is_spoken(secured: Broker, prefix: str, certificates: Certificates) -> None:
    said = refused(NotAuthorised, url_of(secured, "PLAINTEXT", prefix), tls(certificates))
    assert "the listener at this port speaks no TLS" in said


@pytest.mark.parametrize("listener", ["TLS", "SCRAM"])
def test_plaintext_to_a_listener_that_wants_tls_or_credentials(secured: Broker, prefix: str, listener: str) -> None:
    # The broker only hangs up: that may be over in a moment, so it is waited for.
    url = url_of(secured, listener, prefix).replace(f"timeout_s={TIMEOUT_S}", "timeout_s=2")
    said = refused(LogUnavailable, url, {}, at_once=True)
    assert "check security.protocol, which is PLAINTEXT unless set" in said


# SASL.


def test_scram_over_tls(secured: Broker, prefix: str, certificates: Certificates) -> None:
    works(
        url_of(secured, "SCRAMTLS", prefix), {**tls(certificates), **scram("client"), "security.protocol": "SASL_SSL"}
    )


@pytest.mark.parametrize("user", ["client", "nobody"])
def test_a_wrong_password_or_user(secured: Broker, prefix: str, user: str) -> None:
    said = refused(NotAuthorised, url_of(secured, "SCRAM", prefix), scram(user, f"{PASSWORD}?"))
    assert "the broker does not accept the credentials" in said
    assert "check sasl.mechanism, sasl.username and sasl.password" in said


def test_another_mechanism(secured: Broker, prefix: str) -> None:
    said = refused(NotAuthorised, url_of(secured, "SCRAM", prefix), {**scram("client"), "sasl.mechanism": "PLAIN"})
    assert "supported mechanisms: SCRAM-SHA-512" in said
    assert "check sasl.mechanism" in said


def test_a_password_where_nobody_asks(secured: Broker, prefix: str) -> None:
    said = refused(NotAuthorised, url_of(secured, "PLAINTEXT", prefix), scram("client"))
    assert "whether the listener at this port asks for SASL at all" in said


# Where credentials come from.


@pytest.fixture
def without_password(tmp_path: Path) -> Path:
    file = tmp_path / "client.properties"
    lines = (f"{name} = {value}\n" for name, value in scram("client").items() if name != "sasl.password")
    file.write_text("# how to get in\n" + "".join(lines))
    return file


def test_from_a_file(secured: Broker, prefix: str, without_password: Path) -> None:
    with without_password.open("a", encoding="utf-8") as file:
        file.write(f"sasl.password={PASSWORD}\n")
    works(url_of(secured, "SCRAM", prefix, f"&config={without_password}"))


def test_from_the_environment(
    secured: Broker, prefix: str, without_password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCS_KAFKA_CONFIG", str(without_password))
    monkeypatch.setenv("CCS_KAFKA_SASL_PASSWORD", PASSWORD)
    works(url_of(secured, "SCRAM", prefix))


def test_from_the_program_which_wins(
    secured: Broker, prefix: str, without_password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCS_KAFKA_SASL_PASSWORD", "an old one")
    works(url_of(secured, "SCRAM", prefix, f"&config={without_password}"), {"sasl.password": PASSWORD})


# Tokens.


def token(subject: str, expires_at: float) -> str:
    """A token that nobody signed, for a broker that checks no signature."""

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    claims = {"sub": subject, "iat": time.time() - 1, "exp": expires_at}
    return f"{part({'alg': 'none'})}.{part(claims)}."


def bearer(give: Any) -> dict[str, Any]:
    return {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER", "oauth_cb": give}


def test_a_token_by_callback(secured: Broker, prefix: str) -> None:
    asked: list[str] = []

    def give(config: str) -> tuple[str, float]:
        asked.append(config)
        expires_at = time.time() + 600
        return token("client", expires_at), expires_at

    # Each client waits for a second until it has its token: this needs two of them, and leading would need seven.
    store = KafkaLog(KafkaSettings.parse(url_of(secured, "OAUTH", prefix), bearer(give)))
    assert store.end("w") >= 0
    store.close()
    assert asked


def test_a_malformed_token(secured: Broker, prefix: str) -> None:
    def give(_: str) -> tuple[str, float]:
        return "garbage", time.time() + 600

    said = refused(NotAuthorised, url_of(secured, "OAUTH", prefix), bearer(give))
    assert "the broker does not accept the credentials" in said


def test_a_callback_that_fails(secured: Broker, prefix: str) -> None:
    def give(_: str) -> tuple[str, float]:
        raise ConnectionError(f"the identity provider does not know {PASSWORD}")

    began = time.monotonic()
    with pytest.raises(NotAuthorised, match="oauth_cb raised ConnectionError") as caught:
        ccs_stream.connect(url_of(secured, "OAUTH", prefix), workspace="w", kafka=bearer(give))
    assert PASSWORD not in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert time.monotonic() - began < 1


# Passed through.


@pytest.fixture
def data(secured: Broker) -> Path:
    return secured.log_of(1).parent / "data"


@pytest.mark.parametrize(("name", "code"), [("none", 0), ("gzip", 1), ("lz4", 3), ("zstd", 4)])
def test_what_is_sent_is_compressed_as_asked(secured: Broker, data: Path, name: str, code: int) -> None:
    prefix = f"compressed-{uuid.uuid4().hex[:8]}"
    url = f"kafka://{secured.bootstrap_servers}?prefix={prefix}"
    topics.create(Clients(KafkaSettings.parse(url)), partitions=1)
    with ccs_stream.connect(url, workspace="w", kafka={"compression.type": name}) as workspace:
        workspace.agent("a").write("k", "x" * 20_000)
    # Bytes 21 and 22 of a batch are its attributes, whose lowest three bits are the compression.
    segment = (data / f"{prefix}.log.v1-0" / f"{0:020}.log").read_bytes()
    found = set()
    at = 0
    while at < len(segment):
        found.add(int.from_bytes(segment[at + 21 : at + 23], "big") & 7)
        at += 12 + int.from_bytes(segment[at + 8 : at + 12], "big")
    assert code in found
    assert (b"x" * 1_000 in segment) == (code == 0)

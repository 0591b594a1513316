"""A broker that asks who one is and lets nobody do what no ACL allows: its certificates, users, and what each may do.

Guarantees: certificates and passwords are made in the run, and are nobody else's; ACLs are those of the table in
docs/kafka.md, by role. Does not: stand in for anything; the authorizer and the listeners are Kafka's own.
"""

import dataclasses
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from ccs_stream.testing.broker import Broker, start_broker

PASSWORD: Final = "pw-Zx81-äöü-Never/Shown=1"
"""Of every user: nothing may ever print it."""
ROLES: Final = ("client", "coordinator", "reader", "admin", "warehouse")
STRANGER: Final = "stranger"
"""A user who may do nothing."""

R, W, D = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
CREATE, CONFIGS = AclOperation.CREATE, AclOperation.DESCRIBE_CONFIGS

TABLE: Final[Mapping[str, Mapping[str, tuple[AclOperation, ...]]]] = {
    "client": {
        "commands.v1": (W,),
        "log.v1": (R,),
        "snapshots.v1": (R,),
        "content.v1": (R, W),
        "deliveries.v1": (W,),
        "readers": (D,),
    },
    "coordinator": {
        "commands.v1": (R,),
        "log.v1": (R, W),
        "snapshots.v1": (R, W),
        "content.v1": (D,),
        "deliveries.v1": (D,),
        "readers": (D,),
        "coordinators": (R,),
    },
    "reader": {
        "commands.v1": (D,),
        "log.v1": (R,),
        "snapshots.v1": (R,),
        "content.v1": (R,),
        "deliveries.v1": (R,),
        "readers": (D,),
    },
    "admin": {
        "commands.v1": (CREATE, D, CONFIGS),
        "log.v1": (CREATE, R, W, CONFIGS),
        "snapshots.v1": (CREATE, D, CONFIGS),
        "content.v1": (CREATE, D, CONFIGS),
        "deliveries.v1": (CREATE, D, CONFIGS),
        "readers": (D,),
    },
}
"""By role, what it may do with each topic and group of a log, less its prefix: docs/kafka.md says the same."""


@dataclasses.dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority, and certificates it signed for the broker and for a client."""

    authority: Path
    broker: Path
    broker_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Certificates of an authority of our own."""
    authority, authority_key = folder / "ca.pem", folder / "ca.key"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ccs-stream tests"),
        *("-keyout", authority_key, "-out", authority),
    )
    for name in ("broker", "client"):
        request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", "ascii")
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", folder / f"{name}.key", "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial"),
            *("-days", "2", "-extfile", extensions, "-out", folder / f"{name}.pem"),
        )
    files = (folder / name for name in ("broker.pem", "broker.key", "client.pem", "client.key"))
    return Certificates(authority, *files)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def start_secured(certificates: Certificates) -> Broker:
    """A broker with ACLs, and with a listener for each way to say who one is.

    The listener without credentials stays for the tests' own doings: `User:ANONYMOUS` is a super user.
    """
    login = "org.apache.kafka.common.security"
    pem = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": certificates.broker_key.read_text("ascii"),
        "ssl.keystore.certificate.chain": certificates.broker.read_text("ascii"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": certificates.authority.read_text("ascii"),
    }
    scram = f"{login}.scram.ScramLoginModule required;"
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": (
            f'{login}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
        "listener.name.mtls.ssl.client.auth": "required",
        **pem,
    }
    for name in ("scram", "scramtls"):
        settings[f"listener.name.{name}.sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
        settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = scram
    users = [*ROLES, STRANGER]
    credentials = (f"SCRAM-SHA-512=[name={user},password={PASSWORD}]" for user in users)
    return start_broker(
        settings=settings,
        listeners={
            "SCRAM": "SASL_PLAINTEXT",
            "SCRAMTLS": "SASL_SSL",
            "TLS": "SSL",
            "MTLS": "SSL",
            "OAUTH": "SASL_PLAINTEXT",
        },
        format_arguments=[argument for each in credentials for argument in ("--add-scram", each)],
    )


def bindings(prefix: str, user: str, role: str) -> list[AclBinding]:
    """The ACLs of a role for a user, on the log with a prefix."""
    return [
        binding(user, operation, kind_of(where), f"{prefix}.{where}")
        for where, operations in TABLE[role].items()
        for operation in operations
    ]


def kind_of(where: str) -> ResourceType:
    """Whether a name of the table is a topic's or a group's."""
    return ResourceType.TOPIC if where.endswith(".v1") else ResourceType.GROUP


def binding(
    user: str,
    operation: AclOperation,
    kind: ResourceType,
    name: str,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    """`user` may do `operation` with a resource."""
    return AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def allow(broker: Broker, bound: Iterable[AclBinding]) -> None:
    """Allow all of these, and wait until it holds."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    wanted = list(bound)
    for made in admin.create_acls(wanted, request_timeout=20).values():
        made.result()
    users = {each.principal for each in wanted}
    deadline = time.monotonic() + 20
    while any(_missing(admin, user, wanted) for user in users):
        assert time.monotonic() < deadline, "the ACLs do not come to hold"
        time.sleep(0.05)


def _missing(admin: AdminClient, user: str, wanted: Iterable[AclBinding]) -> bool:
    anything: Any = (ResourceType.ANY, None, ResourcePatternType.ANY)
    theirs = AclBindingFilter(*anything, user, None, AclOperation.ANY, AclPermissionType.ANY)  # type: ignore[call-arg]
    found = admin.describe_acls(theirs, request_timeout=20).result()
    return any(each.principal == user and each not in found for each in wanted)


def add_user(broker: Broker, user: str) -> None:
    """A further user, who may do nothing yet."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    upserted = UserScramCredentialUpsertion(user, kind, PASSWORD.encode())
    for made in admin.alter_user_scram_credentials([upserted], request_timeout=20).values():
        made.result()


def scram(user: str, password: str = PASSWORD) -> dict[str, str]:
    """librdkafka's settings for a user of the listener `SCRAM`."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
    }

"""Opening a workspace from a URL.

Guarantees: one URL is enough; an option nobody knows raises and names the nearest known one. Does not: open
twice what is open; two calls with one file are two connections that see each other through the log, two calls with one
log on Kafka and equal settings share their connections.
"""

from collections.abc import Mapping
from typing import Any, Final, Unpack

from ccs_stream.client.cache.content_cache import DEFAULT_BYTES_MAX
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.options import ClientOptions, parse_options
from ccs_stream.client.workspace import DEFAULT_WORKSPACE, Workspace
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.settings import WorkspaceSettings

_KNOWN: Final = ("url", "workspace", "settings", "freshness", "body_cache_bytes", "kafka")


def connect(
    url: str | None = None,
    *,
    workspace: str | None = None,
    settings: WorkspaceSettings | None = None,
    freshness: Freshness | str | None = None,
    body_cache_bytes: int = DEFAULT_BYTES_MAX,
    kafka: Mapping[str, Any] | None = None,
    **options: Unpack[ClientOptions],
) -> Workspace:
    """Open `workspace` on the log at `url`, creating both where they do not exist (a log on Kafka is never created).

    `url` is `sqlite:///FILE.db`, `kafka://HOST:PORT`, or None for a log in memory. `workspace` is the one that the URL
    names, else `default`. `settings` fix the limits of a new workspace; given for one that was opened with others,
    they raise. `freshness` is the default of reads: `latest` on embedded logs, `own_writes` on Kafka.
    `body_cache_bytes` bounds the bodies kept in this process. `kafka` are settings of librdkafka. The other options are
    those of `ccs_stream.client.options.ClientOptions`.

    Raises `UsageError` and the `LogError`s of the log.
    """
    if workspace is not None and (type(workspace) is not str or not workspace):
        raise UsageError(f"a workspace's name is a non-empty string, got {workspace!r}")
    policy = parse_options(options, of="connect", others=_KNOWN)
    wanted = None if freshness is None else Freshness.parse(freshness)
    store = open_log(url, client=kafka, shared=True)
    try:
        name = _name(workspace, store.named_workspace)
        return Workspace(
            store, name, settings=settings, freshness=wanted, body_cache_bytes=body_cache_bytes, policy=policy
        )
    except BaseException:
        store.close()
        raise


def _name(asked: str | None, named: str | None) -> str:
    if asked is not None and named is not None and asked != named:
        raise UsageError(f"workspace={asked!r} was asked for, and the URL names {named!r}: say one of them")
    return asked or named or DEFAULT_WORKSPACE

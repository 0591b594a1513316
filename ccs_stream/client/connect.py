"""Opening a workspace from a URL.

Guarantees: one URL is enough. An unknown option raises and names the nearest known one. Does not: share what is open,
except on Kafka: two calls with one file are two connections that see each other through the log, and two calls with one
log on Kafka and equal settings share their connections.
"""

from pathlib import Path
from typing import Final, Unpack

from ccs_stream.client.options import ClientOptions, parse_options
from ccs_stream.client.workspace import DEFAULT_WORKSPACE, Workspace
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.limits import check_text

_KNOWN: Final = ("url", "workspace")


def connect(
    url: str | Path | None = None, *, workspace: str | None = None, **options: Unpack[ClientOptions]
) -> Workspace:
    """Open `workspace` on the log at `url`.

    ```python
    import ccs_stream

    with ccs_stream.connect(workspace="release-42") as workspace:
        planner = workspace.agent("planner")
        planner.write("plan", {"step": 1})
        print(planner.read("plan").value)
    ```

    Args:
        url: `sqlite:///FILE.db` or the path of that file as a `pathlib.Path`, `kafka://HOST:PORT`, or None for a log
            in memory. A file and a workspace are created where they do not exist; the topics of a log on Kafka never
            are.
        workspace: The workspace; by default the one that the URL names, else `default`.
        options: See `ccs_stream.client.options.ClientOptions`: limits, freshness, strategies, records, crash recovery,
            degraded mode, metrics.

    Raises:
        UsageError: For a URL, name or option that cannot be used.
        LogError: For a log that cannot be opened, and its kinds.

    """
    if workspace is not None:
        check_text(workspace, "a workspace's name", least=1)
    config = parse_options(options, of="connect", others=_KNOWN)
    store = open_log(url, client=config.kafka, shared=True)
    try:
        return Workspace(store, _name(workspace, store.named_workspace), config=config, closes_dropped_store=True)
    except BaseException:
        store.close()
        raise


def _name(name: str | None, named: str | None) -> str:
    if name is not None and named is not None and name != named:
        raise UsageError(f"workspace={name!r} was given, and the URL names {named!r}: give only one of them")
    return name or named or DEFAULT_WORKSPACE

"""Opening a workspace from a URL.

Guarantees: one URL is enough; an option nobody knows raises and names the nearest known one. Does not: open anything
twice; two calls with one file are two connections that see each other through the log.
"""

from ccs_stream.client.bodies import DEFAULT_BYTES_MAX
from ccs_stream.client.freshness import Freshness
from ccs_stream.client.workspace import DEFAULT_WORKSPACE, Workspace
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.settings import WorkspaceSettings


def connect(
    url: str | None = None,
    *,
    workspace: str = DEFAULT_WORKSPACE,
    settings: WorkspaceSettings | None = None,
    freshness: Freshness | str = Freshness.LATEST,
    body_cache_bytes: int = DEFAULT_BYTES_MAX,
) -> Workspace:
    """Open `workspace` on the log at `url`, creating both where they do not exist.

    `url` is `sqlite:///FILE.db`, or None for a log in memory. `settings` fix the limits of a new workspace; given for
    one that was opened with others, they raise. `freshness` is the default of reads. `body_cache_bytes` bounds the
    bodies kept in this process. Raises `UsageError` and the `LogError`s of the log.
    """
    if type(workspace) is not str or not workspace:
        raise UsageError(f"a workspace's name is a non-empty string, got {workspace!r}")
    wanted = Freshness.parse(freshness)
    store = open_log(url)
    try:
        return Workspace(store, workspace, settings=settings, freshness=wanted, body_cache_bytes=body_cache_bytes)
    except BaseException:
        store.close()
        raise

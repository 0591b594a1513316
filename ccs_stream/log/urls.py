"""Opening the log at a URL: which store a scheme means, and its options.

The client, the coordinators and all command-line tools use `open_log`.

Guarantees: an unknown scheme or option raises an error that names the nearest known one. Does not: guess; a path
without a scheme is no URL.
"""

import os
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ccs_stream.log.archive import ArchiveLog
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import LogStore
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import UsageError, unknown_name
from ccs_stream.protocol.limits import shown

MEMORY_NAME: Final = ":memory:"
"""The name by which SQLite itself knows a database in memory."""
URL_CHARACTERS_MAX: Final = 16_384
SCHEMES: Final = ("memory", "sqlite", "file", "kafka")


def open_log(
    url: str | Path | None,
    *,
    create: bool = True,
    read_only: bool = False,
    client: Mapping[str, Any] | None = None,
    shared: bool = False,
) -> LogStore:
    """Open the log at `url`.

    None or `memory:`, `sqlite:///relative.db`, `sqlite:////absolute.db`, `file:archive.avro`, `kafka://HOST:PORT?...`,
    or the path of an SQLite file as a `pathlib.Path`.
    With `create` False a log that does not exist raises `LogMissing`, as a log on Kafka always does; with `read_only`
    nothing is ever written. `client` are settings of librdkafka. With `shared`, a log on Kafka that this process has
    open with the same settings is not connected to again. Raises `UsageError` for a URL that is none of these.
    """
    if url is None:
        return MemoryLog()
    url = checked_url(url)
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise UsageError(f"the URL of the log cannot be read: {error}") from None
    if parts.scheme not in SCHEMES and parts.netloc.rpartition("@")[1]:
        url = url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)  # what is shown names no user
    if client and parts.scheme != "kafka":
        raise UsageError(f"settings of librdkafka were given for {url!r}, which is not on Kafka")
    options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    match parts.scheme:
        case "memory":
            _known(options, {}, url)
            return MemoryLog()
        case "sqlite":
            if parts.netloc or len(parts.path) < 2 or not url.lower().startswith("sqlite:///"):
                raise UsageError(
                    f"{url!r} names no file: write sqlite:///team.db for a file here, sqlite:////var/team.db for "
                    "an absolute path"
                )
            chosen = _known(options, {"synchronous": str, "busy_timeout_s": float, "file_mode": _octal}, url)
            path = _path(parts.path[1:], url)
            if path.name == MEMORY_NAME:
                raise UsageError(f"{url!r} names a file: for a log in memory give memory:, or no URL")
            return SqliteLog(path, create=create, read_only=read_only, **chosen)
        case "file":
            _known(options, {}, url)
            return ArchiveLog(_path(parts.netloc + parts.path, url))
        case "kafka":
            # librdkafka takes a tenth of a second to load, and most logs do without it.
            from ccs_stream.log.kafka.settings import KafkaSettings  # noqa: PLC0415
            from ccs_stream.log.kafka.shared_logs import shared_log  # noqa: PLC0415
            from ccs_stream.log.kafka.store import KafkaLog  # noqa: PLC0415

            settings = KafkaSettings.parse(url, client)
            return shared_log(settings) if shared and not read_only else KafkaLog(settings, read_only=read_only)
        case "":
            raise UsageError(
                f"{url!r} is no URL: write sqlite:///{url} for a log in that file, file:{url} for an archive"
            )
        case _:
            raise unknown_name(parts.scheme, SCHEMES, what="unknown scheme")


def checked_url(url: object) -> str:
    """The text of a URL, or the URL of a path. Raises `UsageError` for what would name something else than it says."""
    if isinstance(url, Path):
        return f"sqlite:///{urllib.parse.quote(os.fsencode(url))}"
    if not isinstance(url, str):
        raise UsageError(f"the URL of a log is text, or the path of an SQLite file, got {shown(url)}")
    if len(url) > URL_CHARACTERS_MAX:
        raise UsageError(f"{_without_secrets(url)!r} has {len(url)} characters, at most {URL_CHARACTERS_MAX} are taken")
    if not url.isprintable():
        raise UsageError(f"{_without_secrets(url)!r} has a character that cannot be seen: write it as %XX")
    if "#" in url and not url.startswith("kafka:"):
        raise UsageError(f"{_without_secrets(url)!r} has a part behind #, which would be ignored: write %23 for #")
    return url


def _without_secrets(url: str) -> str:
    """The beginning of a URL, to show: without options, and without what may be a user and a password."""
    return f"{url.partition(':')[0][:20]}:..." if "@" in url else url.partition("?")[0][:80]


def _octal(text: str) -> int:
    return int(text, 8)


def _path(quoted: str, url: str) -> Path:
    """The file that a URL names. Raises `UsageError`."""
    try:
        path = urllib.parse.unquote(quoted, errors="strict")
        os.fsencode(path)
    except UnicodeError as error:
        raise UsageError(f"{url!r} names a file by bytes that are no text in UTF-8") from error
    if "\0" in path:
        raise UsageError(f"{url!r} names a file with a zero byte in its name")
    return Path(path)


def _known(options: Mapping[str, str], kinds: Mapping[str, Callable[[str], Any]], url: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, text in options.items():
        if name not in kinds:
            raise unknown_name(name, kinds, what="unknown option", where=f" in {url!r}")
        try:
            chosen[name] = kinds[name](text)
        except ValueError as error:
            raise UsageError(f"option {name}={text!r} in {url!r} is no number") from error
    return chosen

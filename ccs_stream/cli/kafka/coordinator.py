"""`ccs-stream coordinator URL`: run a dedicated coordinator until it is stopped.

Guarantees: SIGTERM and SIGINT stop it gracefully: it resigns in the log, and another coordinator takes over at once.
Exit codes: 0 stopped, 1 failed, 2 wrong usage.
"""

import logging
import signal
import sys

import click

from ccs_stream.coordinator.kafka.health_server import HealthServer
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import UsageError
from ccs_stream.replay.exit_codes import reports_errors
from ccs_stream.replay.output import say


@click.command(
    short_help="Run a coordinator of a log on Kafka.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("url")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    show_default=True,
    help="Address of /healthz, /readyz and /metrics; port 0 takes a free port and prints it.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
@reports_errors()
def coordinator(url: str, listen: str, verbose: bool) -> None:  # noqa: FBT001  # click's flags
    """Run a coordinator: the process that orders and decides the writes of a log on Kafka.

    URL is kafka://HOST:PORT[,HOST:PORT]?prefix=PREFIX. Run at least two, on different machines: when one stops or dies,
    the others take over its partitions. SIGTERM hands them over at once.

    \b
    Example:
      ccs-stream coordinator "kafka://broker-1:9092?config=client.properties"

    Exit codes: 0 stopped, 1 something failed, 2 wrong usage.
    """  # noqa: D301  # click reads the escapes
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("ccs_stream.coordinator").setLevel(logging.INFO)
    run(url, listen)


def run(url: str, listen: str) -> None:
    """Run until a signal stops it. Raises `CcsError`s."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit():
        raise UsageError(f"--listen {listen!r} is not HOST:PORT")
    store = KafkaLog(KafkaSettings.parse(url))
    service = CoordinatorService(store)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        with HealthServer(service, host, int(port)) as health:
            say(f"coordinator of {store.display_url}, health at http://{health.address}/readyz", err=True)
            service.start()
            say(f"following {store.partitions} partitions, offering to lead", err=True)
            service.wait()
            say("stopping: handing over", err=True)
    finally:
        service.close()

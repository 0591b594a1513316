"""`ccs-stream coordinator URL`: run a dedicated coordinator until it is stopped.

Guarantees: SIGTERM and SIGINT stop it gracefully: it resigns on the log and hands over. Exit codes: 0 stopped, 1
failed, 2 wrong usage.
"""

import logging
import signal
import sys

import click

from ccs_stream.coordinator.kafka.health import HealthServer
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    show_default=True,
    help="Where /healthz, /readyz and /metrics are served; port 0 takes a free one and says which.",
)
@click.option("--verbose", is_flag=True, help="Say more of what happens.")
def coordinator(url: str, listen: str, verbose: bool) -> None:  # noqa: FBT001  # click's flags
    r"""Decide the commands of a log on Kafka: lead those partitions that the group suggests and the log grants.

    URL is kafka://HOST:PORT[,HOST:PORT]?prefix=PREFIX. Run two or more, on different machines: when one stops or dies,
    the others take its partitions over. SIGTERM hands over at once.

    \b
    Example:
      ccs-stream coordinator "kafka://broker-1:9092,broker-2:9092?config=client.properties"

    Exit codes: 0, stopped; 1, something failed; 2, wrong usage.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("ccs_stream.coordinator").setLevel(logging.INFO)
    try:
        run(url, listen)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    except CcsError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


def run(url: str, listen: str) -> None:
    """Serve until stopped. Raises `CcsError`s."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit():
        raise UsageError(f"--listen {listen!r} is no HOST:PORT")
    store = KafkaLog(KafkaSettings.parse(url))
    service = CoordinatorService(store)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        with HealthServer(service, host, int(port)) as health:
            click.echo(f"coordinator of {store.display_url}, health at http://{health.address}/readyz", err=True)
            service.start()
            click.echo(f"following {store.partitions} partitions, offering to lead", err=True)
            service.wait()
            click.echo("stopping: handing over", err=True)
    finally:
        service.close()

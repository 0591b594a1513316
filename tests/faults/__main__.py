"""Run the faults and print one table: `python -m tests.faults [--full] [--only NAME]`.

Guarantees: exit code 0 only if every one holds. Seeds are printed; CCS_TEST_SEED runs one again.
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.all import FAULTS, name_of
from tests.faults.environment import heal, make, own_broker
from tests.faults.table import Row, table


def main() -> int:
    """Run what was asked for."""
    names = [name_of(each) for each in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults on a real broker.")
    parser.add_argument("--full", action="store_true", help="full sizes: 8 clients, 3 workspaces, 20 kills, ...")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of {', '.join(names)}, or its beginning")
    asked = parser.parse_args()
    chosen = [each for each in FAULTS if not asked.only or any(name_of(each).startswith(name) for name in asked.only)]
    if not chosen:
        parser.error(f"no fault of that name; there are {', '.join(names)}")
    logging.basicConfig(level=logging.CRITICAL)
    rows: list[Row] = []
    with own_broker() as broker, tempfile.TemporaryDirectory(prefix="ccs-faults-") as folder:
        sys.stderr.write(f"on {broker.how}\n")
        for fault in chosen:
            began = time.monotonic()
            try:
                heal(broker)
                rows.append(fault(make(broker, Path(folder), name_of(fault), full=asked.full)))
            except Exception as error:  # noqa: BLE001  # the others are run all the same
                rows.append(Row(name_of(fault), findings=[f"{type(error).__name__}: {error}"]))
            sys.stderr.write(f"{name_of(fault)}: {rows[-1].verdict}, {time.monotonic() - began:.0f} s\n")
            sys.stderr.writelines(f"  {each}\n" for each in rows[-1].findings)
    sys.stdout.write(table(rows) + "\n")
    return int(any(row.findings for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""The checks of `ccs-stream doctor` in their order, and those that read the log: leadership, commands, clock, state.

Guarantees: it joins no group, appends nothing and commits nothing; a check that cannot be made says what it lacks, and
the others are made. Does not: print; and no finding contains a secret.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ccs_stream.cli.kafka.doctor_broker import connection, limits, rights, topics_of, version
from ccs_stream.cli.kafka.doctor_log import (
    PartitionReader,
    Progress,
    folds_from_zero,
    follow_partition,
    state_hashes,
)
from ccs_stream.cli.kafka.doctor_report import CheckResult, DoctorReport, Level
from ccs_stream.coordinator.kafka.group.description import CoordinatorGroup, describe_group
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError

CLOCKS_DIFFER_S: Final = 1.0
"""Clocks that NTP keeps in step differ by less."""
CLOCKS_WRONG_S: Final = 60.0
"""With such a difference reservations and expiries of seconds are meaningless."""
DECIDED_WITHIN_S: Final = 2.0
"""Commands may wait so long before it is reported; a leader takes milliseconds."""


def examine(settings: KafkaSettings, *, quick: bool, progress: Progress) -> DoctorReport:
    """Make every check; with `quick`, those that do not read the whole log."""
    report = DoctorReport(settings.display_url)
    clients = Clients(settings)
    checks = report.checks
    made = _run_check("connection", lambda: connection(clients))
    checks += made
    if made[0].level is Level.FAILED:
        return report
    checks += _run_check("topics", lambda: topics_of(clients))
    checks += _run_check("rights", lambda: rights(clients))
    checks += _run_check("broker version", lambda: version(clients))
    checks += _run_check("broker limits", lambda: limits(clients))
    try:
        store = KafkaLog(settings, read_only=True)
    except CcsError as error:
        checks.append(
            CheckResult("log", Level.FAILED, str(error), "nothing else can be looked at before this is right")
        )
        return report
    try:
        checks += _run_check("log", lambda: _log(store, report, quick=quick, progress=progress))
    finally:
        store.close()
    return report


def _run_check(name: str, check: Callable[[], list[CheckResult]]) -> list[CheckResult]:
    try:
        return check()
    except CcsError as error:
        return [CheckResult(name, Level.FAILED, str(error))]


def _log(store: KafkaLog, report: DoctorReport, *, quick: bool, progress: Progress) -> list[CheckResult]:
    followed = [follow_partition(store, partition, progress) for partition in range(store.partitions)]
    asked_at = time.monotonic()
    group = _group(store)
    late = [each for each in followed if each.undecided]
    if late:  # what is being decided this moment is none of anybody's business
        time.sleep(max(asked_at + DECIDED_WITHIN_S - time.monotonic(), 0))
        for each in late:
            each.read_to_end(progress)
    report.partitions += [_row(each, group) for each in followed]
    checks = [_head(store, followed), *_leadership(store, followed, group), _lag(followed), *_clock(followed)]
    if quick:
        checks.append(CheckResult("state", Level.OK, "not compared (--quick)"))
    else:
        checks += _state(store, followed, progress)
    return checks


def _group(store: KafkaLog) -> CoordinatorGroup | CcsError:
    """The coordinators' group, or the error of asking for it."""
    try:
        return describe_group(store)
    except CcsError as error:
        return error


def _row(followed: PartitionReader, group: CoordinatorGroup | CcsError) -> dict[str, Any]:
    cursor = followed.cursor
    return {
        "partition": followed.partition,
        "epoch": cursor.epoch,
        "leader": cursor.leader_id.hex() if cursor.epoch else None,
        "resigned": cursor.resigned,
        "offered_by": [] if isinstance(group, CcsError) else group.suggested_for(followed.partition),
        "undecided": followed.undecided,
        "workspaces": len(followed.states),
        "void": cursor.void,
        "ends_at": followed.end,
    }


def _head(store: KafkaLog, followed: list[PartitionReader]) -> CheckResult:
    workspaces = sum(len(each.states) for each in followed)
    records = sum(each.end for each in followed)
    text = f"log {store.log_id.hex()}: {store.partitions} partitions, {records} records, {workspaces} workspaces"
    broken = [each for each in followed if each.error is not None]
    if broken:
        return CheckResult(
            "log",
            Level.FAILED,
            "; ".join(f"partition {each.partition}: {each.error}" for each in broken),
            "coordinators stop there: do what the message says",
        )
    void = sum(each.cursor.void for each in followed)
    return CheckResult("log", Level.OK, text + (f", {void} void records, which every reader skips" if void else ""))


def _leadership(
    store: KafkaLog, followed: list[PartitionReader], group: CoordinatorGroup | CcsError
) -> Iterator[CheckResult]:
    if isinstance(group, CcsError):
        yield CheckResult(
            "leadership",
            Level.WARNING,
            f"who is in the coordinators' group is not known: {group}",
            f"allow this user Describe on the group {store.names.coordinators}",
        )
        return
    alone = [each for each in followed if not group.suggested_for(each.partition)]
    stuck = [each for each in alone if each.undecided]
    if stuck:
        yield CheckResult(
            "leadership",
            Level.FAILED,
            f"nobody offers to lead {_named(stuck)}, and commands wait there",
            "start `ccs-stream coordinator URL`, on two machines or more",
        )
    idle = [each for each in alone if not each.undecided]
    if idle:
        yield CheckResult(
            "leadership",
            Level.WARNING,
            f"nobody offers to lead {_named(idle)}; no command waits there",
            "normal if programs embed their coordinator and none of them runs now; else start `ccs-stream "
            "coordinator URL`",
        )
    unled = [each for each in followed if each not in alone and (not each.cursor.epoch or each.cursor.resigned)]
    if unled:
        yield CheckResult(
            "leadership",
            Level.WARNING,
            f"{_named(unled)}: offered, and not claimed yet",
            "run doctor again in a moment; if it stays so, the coordinator's log says why it does not lead",
        )
    if len(alone) + len(unled) < len(followed):
        count = len(followed) - len(alone) - len(unled)
        embedded = len(group.members) - group.dedicated
        yield CheckResult(
            "leadership",
            Level.OK,
            f"{count} of {len(followed)} partitions are led; {group.dedicated} dedicated coordinators, "
            f"{embedded} embedded",
            ""
            if group.dedicated != 1
            else "run a second one, on another machine: no other can take over from this one",
        )


def _lag(followed: list[PartitionReader]) -> CheckResult:
    late = [each for each in followed if each.undecided]
    if not late:
        return CheckResult("commands", Level.OK, "every command is decided")
    waiting = ", ".join(f"{each.undecided} in partition {each.partition}" for each in late)
    return CheckResult(
        "commands",
        Level.WARNING,
        f"not decided within {DECIDED_WITHIN_S:g} s: {waiting}",
        "check that a coordinator leads there and that its machine is not overloaded. Messages that are not commands "
        "count too, until a command follows them",
    )


def _clock(followed: list[PartitionReader]) -> Iterator[CheckResult]:
    last = max((state.recorded_at for each in followed for state in each.states.values()), default=0)
    if not last:
        yield CheckResult("clock", Level.OK, "no command was decided yet")
        return
    ahead_s = last / 1e6 - time.time()
    if ahead_s > CLOCKS_DIFFER_S:
        level = Level.FAILED if ahead_s > CLOCKS_WRONG_S else Level.WARNING
        yield CheckResult(
            "clock",
            level,
            f"the last decision was made {ahead_s:.0f} s in the future of this machine's clock",
            "the clock of a coordinator is ahead, or this one's is behind: keep them by NTP. Reservations and expiries "
            "are measured by the leader's clock",
        )
    else:
        yield CheckResult("clock", Level.OK, f"the last decision was made {-ahead_s:.1f} s ago by this machine's clock")


def _state(store: KafkaLog, followed: list[PartitionReader], progress: Progress) -> Iterator[CheckResult]:
    compared = differing = 0
    for each in followed:
        if each.error is not None:
            continue
        if each.unused_snapshots:
            yield CheckResult(
                "state",
                Level.WARNING,
                f"partition {each.partition} has snapshots, and none of them could be used",
                "coordinators and clients read it from its beginning, which takes longer, until the next snapshot",
            )
        if not each.from_snapshot:
            continue
        known, anew = state_hashes(each.states), folds_from_zero(store, each, progress)
        compared += len(anew)
        for workspace in sorted(known.keys() | anew.keys()):
            if known.get(workspace) != anew.get(workspace):
                differing += 1
                yield CheckResult(
                    "state",
                    Level.FAILED,
                    f"{workspace!r}: the state from a snapshot is not the state computed from the beginning",
                    "delete the snapshots topic and create it again, run `ccs-replay URL verify`, and report this: it "
                    "is a bug, or another program wrote to the snapshots topic",
                )
    if not differing:
        text = (
            f"{compared} workspaces: the state from the snapshots is the state computed from the beginning"
            if compared
            else "no snapshots yet: every state is computed from the beginning"
        )
        yield CheckResult("state", Level.OK, text)


def _named(followed: Sequence[PartitionReader]) -> str:
    """The partitions as a list of ranges: 0-2, 5."""
    numbers = [each.partition for each in followed]
    runs = [
        [number for _, number in run]
        for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    listed = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"partition{'s' if len(numbers) > 1 else ''} {listed}"

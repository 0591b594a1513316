"""The expectations that every run of the demo must meet.

Guarantees: each check compares what was measured with what was promised, and reports both. Does not: pass without
evidence; a race in which no writes collided fails, because it has shown nothing.
"""

from ccs_stream.cli.demo.evidence import Evidence
from ccs_stream.cli.demo.result import Expectation, KilledWriters, RaceResult, RebuiltState, StoppedHolder


def of_races(unguarded: RaceResult, guarded: RaceResult) -> list[Expectation]:
    """Without guard a loss is on record; with guard there is none."""
    return [
        Expectation(
            what="unguarded, updates were lost, and the log says whose",
            held=bool(unguarded.lost) and bool(unguarded.overwrites),
            measured=f"{len(unguarded.lost)} of {unguarded.acknowledged} lost, {len(unguarded.overwrites)} writes over "
            "unseen versions on record",
        ),
        Expectation(
            what="guarded, nothing was lost",
            held=not guarded.lost and guarded.kept == guarded.acknowledged and not guarded.overwrites,
            measured=f"{guarded.kept} of {guarded.acknowledged} kept",
        ),
        Expectation(
            what="guarded, writes over unseen versions were refused and merged",
            held=guarded.refused > 0,
            measured=f"{guarded.refused} refused",
        ),
    ]


def of_processes(stopped: StoppedHolder, killed: KilledWriters) -> list[Expectation]:
    """A stopped process writes nothing late, and a kill loses nothing that was acknowledged."""
    return [
        Expectation(
            what="the late write of a stopped holder was refused",
            held=stopped.late_write == "reclaimed" and stopped.fence_after > stopped.fence,
            measured=f"{stopped.late_write or 'accepted'}; fence {stopped.fence}, then {stopped.fence_after}",
        ),
        Expectation(
            what="after reading again, it wrote on top",
            held=stopped.versions == ["successor", "holder"],
            measured=" then ".join(stopped.versions),
        ),
        Expectation(
            what="every write acknowledged before a kill is on the log, once",
            held=not killed.missing and killed.acknowledged > 0,
            measured=f"{killed.missing} of {killed.acknowledged} missing",
        ),
        Expectation(
            what="no write was cut in half by a kill",
            held=not killed.halves,
            measured=f"{killed.halves} halves",
        ),
    ]


def of_log(
    before_races: Evidence, rebuilt: RebuiltState, evidence: Evidence, unguarded: RaceResult
) -> list[Expectation]:
    """The log keeps its rules, and the state can be rebuilt from it."""
    found = evidence.invariants
    return [
        Expectation(
            what="in the review nobody wrote over what they had not read",
            held=not before_races.invariants.losses,
            measured=f"{before_races.invariants.losses} lost updates",
        ),
        Expectation(
            what="sequences are gap-free, and nothing on the log is void",
            held=evidence.gap_free and rebuilt.gap_free,
            measured=f"1 to {len(evidence.events)} in {evidence.records} records",
        ),
        Expectation(
            what="the log breaks no invariant, and the only losses are those of the unguarded race",
            held=not found.violations and found.losses == len(unguarded.overwrites),
            measured=f"{found.violations} violations, {found.losses} lost updates",
        ),
        Expectation(
            what="the state rebuilt from the log is the live one",
            held=rebuilt.rebuilt_hash == rebuilt.live_hash,
            measured=f"{rebuilt.rebuilt_hash[:14]}… and {rebuilt.live_hash[:14]}…",
        ),
    ]

"""The demo as text for people: what happened, what it cost, what was caught.

Guarantees: colour on a terminal only (and not with NO_COLOR), no control characters in a pipe; commands are printed on
one line, to be copied. Does not: say anything that is not in the result.
"""

from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ccs_stream.cli.demo.result import (
    DemoResult,
    KilledWriters,
    RaceResult,
    RebuiltState,
    Review,
    StoppedHolder,
    UnseenOverwrite,
)
from ccs_stream.cli.demo.source_checks import ReviewFinding
from ccs_stream.cli.demo.tokens import BYTES_PER_TOKEN, SIGNAL_TOKENS, UNCHANGED_TOKENS
from ccs_stream.replay.output import PlainTable, visible

PIPE_WIDTH: Final = 120
INDENT: Final = 3
SHOWN: Final = 3
"""Examples of each kind; the rest are counted, and are all in `--json`."""

Part = str | tuple[str, str]
GOOD: Final = "green"
BAD: Final = "bold red"
CAUGHT: Final = "yellow"
QUIET: Final = "dim"


def _visible(part: Part) -> Part:
    """A part as it may be shown: names of files are the text of others."""
    return visible(part) if isinstance(part, str) else (visible(part[0]), part[1])


class Page:
    """Prints headings and paragraphs; a part of a paragraph is text, or text and its style."""

    def __init__(self, out: Console) -> None:
        self._out = out
        if not out.is_terminal:
            out.width = PIPE_WIDTH

    def heading(self, number: int, title: str) -> None:
        """Print a numbered heading, with a blank line before it."""
        self._out.print()
        self._out.print(Text.assemble((f"{number}  ", "bold cyan"), (visible(title), "bold")))

    def say(self, *parts: Part, indent: int = INDENT) -> None:
        """Print a paragraph."""
        # Wrapped here, since rich fills a wrapped line with spaces to the full width, in a pipe as well.
        for line in Text.assemble(*map(_visible, parts)).wrap(self._out, self._out.width - indent):
            line.rstrip()
            self._out.print(Text(" " * indent).append_text(line), soft_wrap=True)

    def gap(self) -> None:
        """Print a blank line."""
        self._out.print()

    def show(self, table: Table) -> None:
        """Print a table."""
        self._out.print(Padding(table, (0, 0, 0, INDENT), expand=False))

    def command(self, line: str, shows: str) -> None:
        """Print a command to copy, on one line, and what it shows."""
        self._out.print(Text.assemble(" " * INDENT, (visible(line), "bold")), soft_wrap=True)
        self.say((shows, QUIET), indent=INDENT + 2)


def tell_story(outcome: DemoResult, out: Console) -> None:
    """Print the whole story."""
    page = Page(out)
    page.say(
        f"ccs-stream {outcome.version}. A LangGraph graph on real files, then real processes, all on one log. What "
        "follows was measured in this run, or read from that log.",
        indent=0,
    )
    _review(page, outcome.review)
    page.heading(2, "Two processes write to one list, without guard")
    _race(page, outcome.unguarded)
    page.heading(3, "The same race, guarded")
    _race(page, outcome.guarded)
    _stopped(page, outcome.stopped)
    _killed(page, outcome.killed)
    _rebuilt(page, outcome.rebuilt)
    _checks(page, outcome)
    page.gap()
    page.say(f"The log ({outcome.log.bytes / 1e6:.1f} MB) is kept, and answers questions:", indent=0)
    for each in outcome.replay:
        page.command(each.command, each.shows)


# The review.


def _review(page: Page, review: Review) -> None:
    what = f"{_many(review.files, 'file')}, {review.lines:,} lines"
    page.heading(1, f"Four agents review {what}, {review.rounds} times over")
    page.say((review.path, QUIET))
    if review.left_out:
        shown = "; ".join(f"{each.path} {each.why}" for each in review.left_out[:SHOWN])
        more = f"; and {len(review.left_out) - SHOWN} more" if len(review.left_out) > SHOWN else ""
        page.say((f"left out {len(review.left_out)}: {shown}{more}", QUIET))
    page.gap()
    for each in review.reviewers:
        change = "" if each.at_first == each.at_last else f" at first, {each.at_last} in the end"
        page.say((f"{each.agent:<13}", "bold"), f"{_many(each.at_first, 'finding')}{change}")
        for finding in _examples(each.findings):
            style = BAD if finding.severity == 3 else CAUGHT if finding.severity == 2 else ""
            page.say((f"{finding.path}:{finding.line}", style), f"  {finding.message}", indent=INDENT + 13)
    page.say(
        (f"{'synthesizer':<13}", "bold"),
        f"read the findings and the code, and documented {_many(len(review.fixed), 'file')} "
        "(in the store; nothing on disk was touched)",
    )
    page.gap()
    page.say(
        "All reviewers add their counts to one board. ",
        (f"{_many(review.merged, 'time')} another reviewer was faster", CAUGHT),
        ": the write was refused, the board was read again, and both counts were kept.",
    )
    page.gap()
    _tokens(page, review)


def _examples(findings: list[ReviewFinding]) -> list[ReviewFinding]:
    """Some of the worst findings, of different rules if there are several."""
    firsts = {each.rule: each for each in reversed(findings)}
    chosen = sorted(firsts.values(), key=findings.index)[:SHOWN]
    return (chosen + [each for each in findings if each not in chosen])[:SHOWN]


def _tokens(page: Page, review: Review) -> None:
    table = PlainTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=QUIET)
    table.add_column("tokens moved")
    for name in ("reads", "fetched", "unchanged", "made stale", "tokens", "if all were re-read"):
        table.add_column(name, justify="right")
    for each in review.readings:
        numbers = (each.reads, each.fetched, each.unchanged, each.signals, each.tokens, each.tokens_rereading)
        table.add_row(each.agent, *(f"{number:,}" for number in numbers))
    columns = zip(*((each.reads, each.fetched, each.unchanged, each.signals) for each in review.readings), strict=True)
    total = [*(sum(column) for column in columns), review.tokens, review.tokens_rereading]
    table.add_row("together", *(f"{number:,}" for number in total), style="bold")
    page.show(table)
    page.say(
        (f"{review.saved_percent} % of the tokens did not have to move", GOOD),
        f": the copies were current. ({BYTES_PER_TOKEN} bytes of JSON count as a token, an unchanged read as "
        f"{UNCHANGED_TOKENS}, notifying an agent that its copy is stale as {SIGNAL_TOKENS}.)",
    )


# The processes.


def _race(page: Page, race: RaceResult) -> None:
    if race.guarded:
        page.say("As before, but a write says which version it is based on.")
    else:
        page.say("Each reads the list, thinks for some milliseconds, and writes it back with one entry more.")
    page.say(
        f"{race.acknowledged} writes acknowledged, ",
        (f"{race.kept} entries are in the list", BAD if race.lost else GOOD),
        *([("; lost: " + _by_writer(race.lost), BAD)] if race.lost else ["."]),
    )
    if race.refused:
        page.say(
            (f"{_many(race.refused, 'write')} refused", CAUGHT),
            " because they were based on an older list; merged, and then accepted.",
        )
    if race.overwrites:
        page.say("The log knows who wrote over whom:")
        for each in race.overwrites[:SHOWN]:
            page.say(_overwrite(each), indent=INDENT + 2)
        if len(race.overwrites) > SHOWN:
            page.say((f"and {len(race.overwrites) - SHOWN} more", QUIET), indent=INDENT + 2)


def _by_writer(entries: list[str]) -> str:
    """`a 1, a 2, b 7` as `a's 1, 2; b's 7`."""
    numbers: dict[str, list[str]] = {}
    for each in entries:
        writer, _, number = each.rpartition(" ")
        numbers.setdefault(writer, []).append(number)
    return "; ".join(f"{writer}'s {', '.join(each)}" for writer, each in numbers.items())


def _overwrite(each: UnseenOverwrite) -> str:
    read = f"read version {each.had_read}" if each.had_read else "found nothing"
    return f"version {each.version} by {each.by}, who had {read}, over {' and '.join(each.unseen)}"


def _stopped(page: Page, stopped: StoppedHolder) -> None:
    page.heading(4, "A process is stopped while it holds a reservation")
    page.say(f"holder reserved the plan for {stopped.limit_s} s (fence {stopped.fence}), and got SIGSTOP.")
    page.say(
        f"successor waited {stopped.waited_s:.2f} s for the limit to pass, took over (fence {stopped.fence_after}), "
        "and wrote."
    )
    page.say(f"holder got SIGCONT after {stopped.stopped_s:.2f} s, and wrote as if nothing had happened:")
    verdict: Part = (stopped.detail, CAUGHT) if stopped.late_write else ("accepted", BAD)
    page.say(verdict, indent=INDENT + 2)
    order = ", ".join(f"version {number} by {agent}" for number, agent in enumerate(stopped.versions, 1))
    page.say(f"Then it read what was there, and wrote on top of it: {order}.")


def _killed(page: Page, killed: KilledWriters) -> None:
    page.heading(5, f"{_many(killed.kills, 'writer')} killed with SIGKILL while they write")
    style = BAD if killed.missing else GOOD
    page.say(f"{killed.acknowledged} writes acknowledged, ", (f"{killed.missing} of them missing", style), ".")
    page.say(
        f"{killed.in_flight} more were sent and not acknowledged: {killed.in_flight_kept} in the log, "
        f"{killed.in_flight - killed.in_flight_kept} not. Each write has two values; ",
        (f"{killed.halves} are there by half", BAD if killed.halves else GOOD),
        ".",
    )


def _rebuilt(page: Page, rebuilt: RebuiltState) -> None:
    page.heading(6, "The state, from the log alone")
    page.say(
        f"A process that knew nothing folded {rebuilt.records:,} records in {rebuilt.seconds:.2f} s, "
        f"sequences 1 to {rebuilt.sequence:,}{', gap-free' if rebuilt.gap_free else ''}."
    )
    same = rebuilt.live_hash == rebuilt.rebuilt_hash
    page.say(f"live     {rebuilt.live_hash}")
    page.say(f"rebuilt  {rebuilt.rebuilt_hash}  ", ("the same", GOOD) if same else ("ANOTHER", BAD))


def _checks(page: Page, outcome: DemoResult) -> None:
    failed = sum(not each.held for each in outcome.checks)
    title = f"{failed} of {len(outcome.checks)} did not hold" if failed else f"all {len(outcome.checks)} held"
    page.heading(7, f"What had to hold: {title} ({outcome.seconds:.1f} s)")
    for each in outcome.checks:
        page.say(("ok      ", GOOD) if each.held else ("FAILED  ", BAD), each.what, (f"  {each.measured}", QUIET))


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

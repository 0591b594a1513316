"""Commands that wait for their decisions, without a broker."""

import threading
import time

import pytest

from ccs_stream.coordinator.kafka.commands.in_flight import AGAIN_S, InFlightCommand, InFlightCommands
from ccs_stream.coordinator.pending_command import Answer, CommandCounter
from ccs_stream.log.kafka.errors import Refusal
from ccs_stream.protocol.commands import Command, Heartbeat
from ccs_stream.protocol.errors import Closed, LogUnavailable, NotAuthorised, OutcomeUnknown, TooLarge
from ccs_stream.protocol.ids import CommandNumber, Hash, LogId, Micros, SequenceNumber, SessionId

SESSION, OTHER = SessionId(b"s" * 16), SessionId(b"o" * 16)
ANSWER = Answer((), SequenceNumber(1), SequenceNumber(1), Micros(0), LogId(bytes(16)), "w", 1, Hash(bytes(32)))


class World:
    """What was sent, and those who ask."""

    def __init__(self, window: int = 4) -> None:
        self.sent: list[tuple[SessionId, CommandNumber]] = []
        self.lock = threading.RLock()
        self.numbers = {SESSION: CommandCounter(), OTHER: CommandCounter()}
        self.asked = InFlightCommands(send=self._send, window=lambda: window, trouble=lambda: "no route")

    def _send(self, command: Command) -> None:
        self.sent.append((command.session_id, command.number))

    def ask(self, session_id: SessionId = SESSION, deadline: float = 1e9) -> InFlightCommand:
        ticket = InFlightCommand(
            Heartbeat(session_id=session_id, number=CommandNumber(0)), self.numbers[session_id], 1.0
        )
        ticket.deadline = deadline
        self.asked.submit(ticket)
        return ticket

    def answer(self, number: int, session_id: SessionId = SESSION) -> None:
        ticket = self.asked.get(session_id, CommandNumber(number))
        assert ticket is not None
        self.asked.resolve(ticket, ANSWER)


def test_a_session_never_has_more_open_than_its_window_remembers() -> None:
    world = World(window=4)
    tickets = [world.ask() for _ in range(10)]
    assert [number for _, number in world.sent] == [1, 2, 3, 4]
    world.answer(2)
    assert len(world.sent) == 4  # 1 is unresolved: 5 would make it too old
    world.answer(1)
    assert [number for _, number in world.sent] == [1, 2, 3, 4, 5, 6]
    world.ask(OTHER)
    assert len(world.sent) == 6  # in order: nobody overtakes
    for number in (3, 4, 5, 6, 7, 8, 9, 10):
        world.answer(number)
    assert all(ticket.result() is ANSWER for ticket in tickets)
    assert world.sent[-1] == (OTHER, 1)


def test_what_was_never_sent_is_known_not_to_have_happened() -> None:
    world = World(window=1)
    sent, queued = world.ask(deadline=5), world.ask(deadline=5)
    world.asked.check(6)
    with pytest.raises(OutcomeUnknown, match="no route"):
        sent.result()
    with pytest.raises(LogUnavailable, match="nothing of it happened"):
        queued.result()


def test_what_was_given_up_on_goes_on_being_sent_and_its_number_stays_open() -> None:
    world = World(window=2)
    given_up = world.ask(deadline=5)
    world.asked.check(6)
    with pytest.raises(OutcomeUnknown) as unknown:
        given_up.result()
    world.asked.check(time.monotonic() + AGAIN_S + 1)
    assert [number for _, number in world.sent] == [1, 1]
    world.ask()
    world.ask()
    assert [number for _, number in world.sent] == [1, 1, 2]  # 3 waits, as 1 is open
    assert unknown.value.outcome(0) is None
    world.answer(1)
    assert unknown.value.outcome(0) is ANSWER
    assert [number for _, number in world.sent] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("refusal", "error"), [(Refusal.TOO_LARGE, TooLarge), (Refusal.DENIED, NotAuthorised), (Refusal.UNKNOWN, None)]
)
def test_what_could_not_be_sent_is_told_where_that_is_certain(refusal: Refusal, error: type[Exception] | None) -> None:
    world = World()
    ticket = world.ask()
    assert ticket.command is not None
    world.asked.not_sent(ticket.command, refusal, NotAuthorised("no"))
    if error is None:
        assert not ticket.resolved
        world.asked.check(time.monotonic() + AGAIN_S / 2 + 0.1)
        assert len(world.sent) == 2
    else:
        with pytest.raises(error):
            ticket.result()
        assert world.asked.get(SESSION, CommandNumber(1)) is None


def test_the_end_tells_everybody_what_is_known() -> None:
    world = World(window=1)
    sent, queued = world.ask(), world.ask()
    world.asked.end(Closed("closed"))
    with pytest.raises(OutcomeUnknown):
        sent.result()
    with pytest.raises(Closed):
        queued.result()


def test_a_thread_that_waits_is_woken_once() -> None:
    world = World()
    ticket = world.ask()
    ticket.signal = threading.Lock()
    ticket.signal.acquire()
    world.answer(1)
    world.asked.wake(world.lock)
    world.asked.wake(world.lock)
    assert ticket.signal.acquire(timeout=0)

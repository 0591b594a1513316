"""Commands in flight, without a broker."""

import threading
import time

import pytest

from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.kafka.commands.in_flight import RESEND_AFTER_S, InFlightCommand, InFlightCommands
from ccs_stream.coordinator.pending_command import CommandCounter
from ccs_stream.log.kafka.errors import BrokerRefusal
from ccs_stream.protocol.commands import Command, Heartbeat
from ccs_stream.protocol.errors import Closed, LogUnavailable, NotAuthorised, OutcomeUnknown, TooLarge
from ccs_stream.protocol.ids import CommandNumber, Hash, LogId, Micros, SequenceNumber, SessionId

SESSION, OTHER = SessionId(b"s" * 16), SessionId(b"o" * 16)
ANSWER = Answer((), SequenceNumber(1), SequenceNumber(1), Micros(0), LogId(bytes(16)), "w", 1, Hash(bytes(32)))


class World:
    """A route that remembers what was sent, and callers who send commands on it."""

    def __init__(self, window: int = 4) -> None:
        self._window = window
        self.sent: list[tuple[SessionId, CommandNumber]] = []
        self.lock = threading.RLock()
        self.numbers = {SESSION: CommandCounter(), OTHER: CommandCounter()}
        self.commands = InFlightCommands(self)

    def send(self, command: Command) -> None:
        self.sent.append((command.session_id, command.number))

    def session_window(self) -> int:
        return self._window

    def broker_error(self) -> str:
        return "no route"

    def ask(self, session_id: SessionId = SESSION, deadline: float = 1e9) -> InFlightCommand:
        command = Heartbeat(session_id=session_id, number=CommandNumber(0))
        pending = InFlightCommand(command, self.numbers[session_id], 1.0)
        pending.deadline = deadline
        self.commands.submit(pending)
        return pending

    def answer(self, number: int, session_id: SessionId = SESSION) -> None:
        pending = self.commands.get(session_id, CommandNumber(number))
        assert pending is not None
        self.commands.resolve(pending, ANSWER)


def test_a_session_never_has_more_open_than_its_window_remembers() -> None:
    world = World(window=4)
    several = [world.ask() for _ in range(10)]
    assert [number for _, number in world.sent] == [1, 2, 3, 4]
    world.answer(2)
    assert len(world.sent) == 4  # 1 is unresolved: 5 would make it too old
    world.answer(1)
    assert [number for _, number in world.sent] == [1, 2, 3, 4, 5, 6]
    world.ask(OTHER)
    assert len(world.sent) == 6  # in order: no command overtakes another
    for number in (3, 4, 5, 6, 7, 8, 9, 10):
        world.answer(number)
    assert all(pending.result() is ANSWER for pending in several)
    assert world.sent[-1] == (OTHER, 1)


def test_a_command_that_was_never_sent_is_known_not_to_have_happened() -> None:
    world = World(window=1)
    sent, queued = world.ask(deadline=5), world.ask(deadline=5)
    world.commands.check(6)
    with pytest.raises(OutcomeUnknown, match="no route"):
        sent.result()
    with pytest.raises(LogUnavailable, match="nothing of it happened"):
        queued.result()


def test_a_command_that_was_given_up_on_goes_on_being_sent_and_its_number_stays_open() -> None:
    world = World(window=2)
    given_up = world.ask(deadline=5)
    world.commands.check(6)
    with pytest.raises(OutcomeUnknown) as unknown:
        given_up.result()
    world.commands.check(time.monotonic() + RESEND_AFTER_S + 1)
    assert [number for _, number in world.sent] == [1, 1]
    world.ask()
    world.ask()
    assert [number for _, number in world.sent] == [1, 1, 2]  # 3 waits, as 1 is open
    assert unknown.value.outcome(0) is None
    world.answer(1)
    assert unknown.value.outcome(0) is ANSWER
    assert [number for _, number in world.sent] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(BrokerRefusal.TOO_LARGE, TooLarge), (BrokerRefusal.DENIED, NotAuthorised), (BrokerRefusal.UNKNOWN, None)],
)
def test_a_command_that_could_not_be_sent_fails_where_that_is_certain(
    refusal: BrokerRefusal, error: type[Exception] | None
) -> None:
    world = World()
    pending = world.ask()
    assert pending.command is not None
    world.commands.not_sent(pending.command, refusal, NotAuthorised("no"))
    if error is None:
        assert not pending.resolved
        world.commands.check(time.monotonic() + RESEND_AFTER_S / 2 + 0.1)
        assert len(world.sent) == 2
    else:
        with pytest.raises(error):
            pending.result()
        assert world.commands.get(SESSION, CommandNumber(1)) is None


def test_the_end_of_following_fails_every_command() -> None:
    world = World(window=1)
    sent, queued = world.ask(), world.ask()
    world.commands.end(Closed("closed"))
    with pytest.raises(OutcomeUnknown):
        sent.result()
    with pytest.raises(Closed):
        queued.result()


def test_a_thread_that_waits_is_woken_once() -> None:
    world = World()
    pending = world.ask()
    pending.signal = threading.Lock()
    pending.signal.acquire()
    world.answer(1)
    world.commands.wake(world.lock)
    world.commands.wake(world.lock)
    assert pending.signal.acquire(timeout=0)

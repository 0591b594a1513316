"""The moves of a `leader_world`, and its way back to rest.

Guarantees: everything that can happen is a move, and moves come in any order: commands, in any order of their numbers,
by the topic or directly; reads, claims, deliveries; and, within a budget, every fault. From each world it can be
checked that, without further faults, one coordinator leads, every command is decided, and the world comes to rest. Does
not: say what is right; `leader_facts` and `leader_world` do, at each step.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.ids import Epoch
from ccs_stream.protocol.leadership import Role
from ccs_stream.protocol.records import DecisionRecord
from formal.leader_facts import LETTERS, NOBODY, REAL, Flight, Rules, describe, require
from formal.leader_world import World

FAULTS: Final = ("crash", "lose", "copy", "time-out", "refuse", "stop", "again", "move")
"""Kinds of faults: a coordinator dies; a record is lost, or comes twice; a producer gives up; the broker refuses a
decision; a graceful stop; a client asks twice; the group moves the shard, which others may not notice."""
HEALS: Final = "from here on everything works"
"""In a history, where healing begins."""
_CLAIMS_FROM: Final = (Role.FOLLOWING, Role.RECOVERING)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The commands and faults that are explored."""

    commands: dict[str, str]
    """By name, how each may come: `topic`, `direct`, or both."""
    at_most: int
    """How many faults there may be."""
    faults: tuple[str, ...] = FAULTS
    """Of which kinds."""
    coordinators: int = 2

    def describe(self) -> str:
        """In what is printed: a `!` is handed over directly, a `(!)` or put into the topic, the others put there."""
        marks = {"topic": "", "direct": "!"}
        commands = [name + marks.get(ways, "(!)") for name, ways in self.commands.items()]
        kinds = "" if self.faults == FAULTS or not self.faults else f" ({', '.join(self.faults)})"
        return f"{' '.join(commands) or 'none'}; {self.at_most} fault{'' if self.at_most == 1 else 's'}{kinds}"


Move = tuple[str, str | None, Callable[..., Any], tuple[Any, ...]]
"""The text of a move, the kind of fault if it is one, and the function to call."""


def begin(scope: Scope, rules: Rules = REAL) -> World:
    """A log that was just opened, led by the first coordinator, without a command."""
    world = World(rules, scope.coordinators, scope.at_most)
    move(world, 0)
    tick(world, 0)
    deliver(world, 0)
    world.read(0)
    world.seek(0)
    world.settle()
    return world


def moves(world: World, scope: Scope) -> Iterator[Move]:
    """Every move that may come next, with faults as far as the budget allows."""
    yield from _asks(world, scope)
    for i, loop in enumerate(world.loops):
        name = LETTERS[i]
        if world.reads[i] < len(world.tail):
            yield f"{name} reads", None, World.read, (i,)
        elif loop.assigned and loop.role in _CLAIMS_FROM:
            yield f"{name}'s timer", None, tick, (i,)
        if loop.role is Role.LEADING and world.taken[i] < len(world.topic):
            yield f"{name} takes {world.topic[world.taken[i]]}", None, take, (i,)
        if loop.assigned and world.group != i:
            yield f"{name} notices that it lost the shard", None, lose_shard, (i,)
        if world.group == NOBODY and loop.role is not Role.STOPPED:
            yield f"{name} is assigned the shard", None, move, (i,)
        if world.lost[i]:
            yield f"{name}'s producer gives up", None, time_out, (i,)
        if world.seeking[i] is not None:
            yield f"{name}'s seek is done", None, World.seek, (i,)
    for number, flight in enumerate(world.flights):
        yield f"{describe(flight.records[0])} arrives", None, deliver, (number,)
    if world.left:
        yield from (each for each in _faults(world) if each[1] in scope.faults)


def _asks(world: World, scope: Scope) -> Iterator[Move]:
    for name, ways in scope.commands.items():
        if name in world.asked:
            continue
        if "topic" in ways:
            yield f"{name} is put into the topic", None, put, (name,)
        if "direct" in ways:
            for i in range(len(world.loops)):
                yield f"{name} is handed to {LETTERS[i]}", None, hand, (name, i)
    for name in sorted(world.orphans):
        yield f"{name} is put into the topic by its client, started again", None, put, (name,)


def _faults(world: World) -> Iterator[Move]:
    for i, loop in enumerate(world.loops):
        name = LETTERS[i]
        yield f"{name} crashes", "crash", crash, (i,)
        if loop.role in (Role.LEADING, Role.CLAIMING) and not world.lost[i]:
            yield f"{name}'s producer gives up", "time-out", time_out, (i,)
        if loop.role is not Role.STOPPED:
            yield f"{name} stops", "stop", stop, (i,)
            if world.group not in (i, NOBODY):
                yield f"the group moves the shard to {name}", "move", move, (i,)
    for number, flight in enumerate(world.flights):
        what = describe(flight.records[0])
        yield f"{what} is lost", "lose", lose, (number,)
        yield f"{what} is copied", "copy", copy_one, (number,)
        record, owner = flight.records[0], flight.owner
        if isinstance(record, DecisionRecord) and owner != NOBODY and world.loops[owner].role is Role.LEADING:
            yield f"the broker refuses {what}", "refuse", refuse, (number,)
    for name in sorted(world.asked - world.orphans):
        yield f"{name} is put into the topic again", "again", put, (name,)
        if name in world.hosts:
            host = world.hosts[name]
            yield f"{name} is handed to {LETTERS[host]} again", "again", hand, (name, host)


def step(world: World, chosen: Move) -> tuple[World, str]:
    """The world after a move, and the text of the move. Raises `BrokenRule`."""
    label, fault, call, arguments = chosen
    after = world.copy()
    if fault is not None:
        after.left -= 1
    note = call(after, *arguments)
    after.settle()
    return after, f"{label} ({note})" if note else label


# Clients.


def put(world: World, name: str) -> None:
    """A command arrives in the commands topic."""
    world.topic += (name,)
    world.asked |= {name}
    world.orphans -= {name}


def hand(world: World, name: str, i: int) -> None:
    """A client in a coordinator's own process hands its command over directly."""
    world.asked |= {name}
    world.hosts = {**world.hosts, name: i}
    world.do(i, world.own(i).command(world.pending(name, None)))


# Coordinators.


def take(world: World, i: int) -> None:
    """A leader takes its next command from the topic."""
    offset = world.taken[i]
    world.taken[i] += 1
    world.do(i, world.own(i).command(world.pending(world.topic[offset], offset)))


def tick(world: World, i: int) -> None:
    """A coordinator has read to the end, and its timer fires."""
    world.do(i, world.own(i).caught_up(Epoch(world.view(i).cursor.epoch), world.fresh_id(i)))


def time_out(world: World, i: int) -> None:
    """A producer gives up; what it sent may be in the log, come to be there, or not."""
    world.do(i, world.own(i).append_unknown())
    world.lost[i] = False


def stop(world: World, i: int) -> None:
    """A graceful stop."""
    world.do(i, world.own(i).stop())
    _leave_group(world, i)


def crash(world: World, i: int) -> None:
    """A coordinator dies with its clients, and starts again, knowing nothing. What it had sent may still arrive."""
    known = world.view(i).decided | world.answered
    world.orphans |= {name for name, host in world.hosts.items() if host == i and name not in known}
    world.hosts = {name: host for name, host in world.hosts.items() if host != i}
    world.abandon(i)
    world.put_loop(i, world.rules.loop())
    world.reads[i], world.taken[i] = len(world.tail), 0
    world.seeking[i] = None
    _leave_group(world, i)


# The group.


def move(world: World, i: int) -> None:
    """The group gives the shard to a coordinator."""
    world.group = i
    world.do(i, world.own(i).assigned_now())


def lose_shard(world: World, i: int) -> None:
    """A coordinator is told that the group gave the shard away."""
    world.do(i, world.own(i).assignment_lost())


def _leave_group(world: World, i: int) -> None:
    if world.group == i:
        world.group = NOBODY


# The network.


def deliver(world: World, number: int) -> str | None:
    """The first record of a flight arrives."""
    verdict = world.append(_pop(world, number))
    return None if verdict is Verdict.ADMITTED else f"void: {verdict}"


def lose(world: World, number: int) -> None:
    """The first record of a flight is lost; what is behind it may still arrive."""
    owner = world.flights[number].owner
    if owner != NOBODY:
        world.lost[owner] = True
    _pop(world, number)


def copy_one(world: World, number: int) -> None:
    """The first record of a flight will come twice."""
    world.flights = (*world.flights, Flight(NOBODY, world.flights[number].records[:1]))


def refuse(world: World, number: int) -> None:
    """The broker will not take a decision, and says so; what is behind it in its batch may still arrive."""
    owner = world.flights[number].owner
    record = _pop(world, number)
    if isinstance(record, DecisionRecord) and world.in_batch(owner, record):
        world.refuse(owner, record)


def _pop(world: World, number: int) -> Any:
    flight = world.flights[number]
    rest = (Flight(flight.owner, flight.records[1:]),) if len(flight.records) > 1 else ()
    world.flights = (*world.flights[:number], *rest, *world.flights[number + 1 :])
    return flight.records[0]


# Healing.


def heal(world: World, here: int, known: set[int], history: list[str]) -> None:
    """From here on nothing goes wrong: what is on its way arrives, and in the end everything is decided, and quiet.

    `here` is the hash of its key. `known` are those of worlds that are known to heal; where it comes by one, it stops.
    What happens is written to `history`. Raises `BrokenRule`.
    """
    if here in known:
        return
    healing = world.copy()
    healing.healing = True
    history.append(HEALS)
    seen = set()
    while here not in known:
        require(here not in seen, "progress: when everything works, somebody leads for good (no livelock)")
        seen.add(here)
        chosen = _next_healing(healing)
        if chosen is None:
            del history[1:]  # what is missing in the end is not missing because of a step
            _check_healed(healing)
            break
        label, _, call, arguments = chosen
        history.append(label)
        call(healing, *arguments)
        healing.settle()
        here = hash(healing.key())
    known |= seen


def _next_healing(world: World) -> Move | None:
    """The next move when there is no fault; None when everything is quiet."""
    for i, name in enumerate(LETTERS[: len(world.loops)]):
        if world.reads[i] < len(world.tail):
            return f"{name} reads", None, World.read, (i,)
    if world.flights:
        return f"{describe(world.flights[0].records[0])} arrives", None, deliver, (0,)
    for i, (name, loop) in enumerate(zip(LETTERS, world.loops, strict=False)):
        if world.seeking[i] is not None:
            return f"{name}'s seek is done", None, World.seek, (i,)
        if world.lost[i]:
            return f"{name}'s producer gives up", None, time_out, (i,)
        if loop.role is Role.LEADING and world.taken[i] < len(world.topic):
            return f"{name} takes {world.topic[world.taken[i]]}", None, take, (i,)
    for command in sorted(world.orphans):
        return f"{command} is put into the topic by its client, started again", None, put, (command,)
    if world.group == NOBODY:
        return "somebody is assigned the shard", None, _assign, ()
    return _next_tick(world)


def _next_tick(world: World) -> Move | None:
    """The first timer that has an effect."""
    for i, loop in enumerate(world.loops):
        if loop.assigned and loop.role in _CLAIMS_FROM:
            tried = world.copy()
            tick(tried, i)
            if tried.key() != world.key():
                return f"{LETTERS[i]}'s timer", None, tick, (i,)
    return None


def _assign(world: World) -> None:
    for i, loop in enumerate(world.loops):
        if loop.role is not Role.STOPPED:
            move(world, i)
            return
    crash(world, 0)


def _check_healed(world: World) -> None:
    leader = world.group
    loop = world.loops[leader]
    require(loop.role is Role.LEADING, "progress: when everything works, one coordinator leads")
    cursor = world.view(leader).cursor
    require(loop.leader_id == cursor.leader_id and not cursor.resigned, "the leader is the one the log names")
    undone = world.asked - world.end.decided - world.answered
    require(not undone, "no command is lost: everything asked for is decided, and its client answered")
    require(not any(each.waiting for each in world.loops), "progress: when everything works, nothing waits")

"""Cancellations at every await of a call: what they may leave behind, counted.

    python -m tests.client.cancellations --count 10000 [--seed N]

`cancelled` runs a coroutine up to its await number `at`, and cancels it there, before or after what it waits for has
happened. Then its author writes again at once, and somebody else writes, too.
"""

import argparse
import asyncio
import collections
import functools
import itertools
import logging
import random
import sys
import tempfile
import types
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, Final

import ccs_stream
from ccs_stream import Reserved, VersionConflict
from ccs_stream.adapters.langgraph import CoherentStore

CALLS_A_STORE: Final = 200
FREED_S: Final = 2.0
"""How soon what was acquired for a cancelled coroutine is free again."""
FAULTS: Final = ("unanswered", "locked out", "still held", "state wrong", "unforeseen")
NAMESPACE: Final = ("a",)


async def cancelled(call: Coroutine[Any, Any, object], at: int, *, late: bool) -> bool:
    """Cancel `call` at its await number `at`; True unless it ended before. `late`: what it waits for has happened."""

    @types.coroutine
    def drive() -> Generator[Any, Any, bool]:
        number, resume = 0, functools.partial(call.send, None)
        try:
            for number in itertools.count(1):
                future = resume()
                resume = functools.partial(call.send, None)
                if number == at:
                    resume = functools.partial(call.throw, asyncio.CancelledError())
                    if not late:
                        if future is not None:
                            future.cancel()
                        continue
                yield future
        except StopIteration:
            return number > at
        except asyncio.CancelledError:
            return True
        raise AssertionError("unreachable: awaits are counted without end")

    return await drive()


class Tried:
    """A store whose writes are guarded, and another one on the same file."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/log.db?synchronous=normal"
        self.store = CoherentStore(self.url, workspace="w", writes="guarded", deliveries=False)
        self.other = CoherentStore(self.url, workspace="w", deliveries=False)
        self.count = 0

    def calls(self) -> dict[str, Callable[[str], Coroutine[Any, Any, object]]]:
        """The calls that are cancelled."""
        return {
            "aput": lambda key: self.store.aput(NAMESPACE, key, {"v": 0}),
            "adelete": lambda key: self.store.adelete(NAMESPACE, key),
            "aget": lambda key: self.store.aget(NAMESPACE, key),
            "asearch": lambda key: self.store.asearch(NAMESPACE),
            "acquire": self._acquire,
            "timeout": self._in_time,
        }

    async def _acquire(self, key: str) -> None:
        async with self.store.acquire(NAMESPACE, key, limit_s=3_600):
            await asyncio.sleep(0)

    async def _in_time(self, key: str) -> None:
        async with asyncio.timeout(random.choice((0, 0.0001, 0.001))):
            await self.store.aput(NAMESPACE, key, {"v": 1})

    async def cancel(self, name: str, at: int, *, late: bool) -> tuple[bool, list[str]]:
        """Cancel a call; whether it was, and what that left wrong."""
        self.count += 1
        key = f"k{self.count % 10}"
        await self.store.aget(NAMESPACE, key)
        try:
            call = self.calls()[name](key)
            if name == "timeout":
                await call
                was = True
            else:
                was = await cancelled(call, at, late=late)
        except TimeoutError:
            was = True
        except Exception:  # noqa: BLE001  # counted
            return True, ["unforeseen"]
        return was, await self._look(key)

    async def _look(self, key: str) -> list[str]:
        faults = []
        try:
            async with asyncio.timeout(10):
                await self._when_free(lambda: self.store.aput(NAMESPACE, key, {"n": self.count}))
                await self._when_free(lambda: self.other.aput(NAMESPACE, key, {"o": self.count}))
        except TimeoutError:
            faults.append("unanswered")
        except VersionConflict:
            faults.append("locked out")
        except Reserved:
            faults.append("still held")
        return faults

    async def _when_free(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        end = asyncio.get_running_loop().time() + FREED_S
        while True:
            try:
                return await write()
            except Reserved:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.01)

    def close(self) -> list[str]:
        """Close both; whether the state is that of the log."""
        with ccs_stream.connect(self.url, workspace="w", deliveries=False) as fresh:
            wrong = len({each.state_hash() for each in (fresh, self.store.workspace, self.other.workspace)}) > 1
        self.store.close()
        self.other.close()
        return ["state wrong"] if wrong else []


async def run(count: int, seed: int) -> collections.Counter[str]:
    """Cancel random calls at random awaits, `count` times; the faults found."""
    chance, found = random.Random(seed), collections.Counter[str]()
    done = 0
    while done < count:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            tried = Tried(Path(folder))
            for _ in range(CALLS_A_STORE):
                name = chance.choice(list(tried.calls()))
                was, faults = await tried.cancel(name, chance.randint(1, 6), late=chance.random() < 0.5)
                if was:
                    done += 1
                    found[f"cancelled {name}"] += 1
                found.update(faults)
                if done >= count:
                    break
            found.update(tried.close())
    return found


def main() -> int:
    """Print the table; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"seed {asked.seed}")
    found = asyncio.run(run(asked.count, asked.seed))
    for name in (*sorted(name for name in found if name not in FAULTS), *FAULTS):
        print(f"{name:<20}{found[name]:>8}")
    return 1 if any(found[name] for name in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())

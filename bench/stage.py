"""Measuring in processes of their own: a player plays a case, and the conductor holds the clock.

They talk in lines of JSON over pipes. A case is prepared, begins for all its players at one moment, is over
when what the players have done adds up, and is put away. All clocks are the machine's monotonic one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

LINE_BYTES = 1 << 20
PLAY_LIMIT_S = 60.0  # one case; a way that hangs must not hang the bench


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, as a player is told it."""

    way: str
    events: int
    amqp: str
    database: str
    name: str  # of the exchange and of the service whose queues are used: this run's own


class Stage:
    """What a way of doing things speaks to while it is measured."""

    def __init__(self, case: Case, lines: asyncio.StreamReader) -> None:
        self.case = case
        self._lines = lines

    async def begin(self) -> None:
        """Everything is prepared: wait for the start."""
        _say({"ready": True})
        await self._lines.readline()

    def done(self, number: int, **told: object) -> None:
        """So many events more are completely done, at this moment."""
        _say({"done": number, "at_s": time.monotonic(), **told})

    async def over(self) -> None:
        """Wait until all players together have done everything."""
        await self._lines.readline()


Way = Callable[[Stage], Awaitable[None]]


async def play(ways: Mapping[str, Way]) -> None:
    """Play cases until the conductor leaves. The whole life of a player."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        case = Case(**json.loads(line))
        await ways[case.way](Stage(case, lines))
        _say({"ended": True})


def _say(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Player:
    """A process that plays cases, as its conductor sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a player ended with {await self._process.wait()}: see above")
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def ended(self) -> None:
        while "ended" not in await self.hear():
            pass


@asynccontextmanager
async def players(count: int, *command: str) -> AsyncIterator[Sequence[Player]]:
    """Start processes of this Python that `play`, and end them."""
    pipe = asyncio.subprocess.PIPE
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=pipe, stdout=pipe, limit=LINE_BYTES
        )
        for _ in range(count)
    ]
    try:
        yield [Player(process) for process in started]
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a case: how long it took until the last event was done, and all that was told."""

    seconds: float
    done: int
    told: tuple[dict[str, Any], ...]


async def conduct(
    case: Case, chosen: Sequence[Player], *, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> Played:
    """Let the players play the case together. `meanwhile` runs once they have begun."""
    told: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(PLAY_LIMIT_S):
            for player in chosen:
                await player.say(asdict(case))
            for player in chosen:
                await player.hear()
            began_s = time.monotonic()
            for player in chosen:
                await player.say("begin")
            if meanwhile:
                await meanwhile()
            await _hear_until_done(case.events, chosen, told)
            for player in chosen:
                await player.say("over")
            for player in chosen:
                await player.ended()
    except TimeoutError:
        done = sum(each["done"] for each in told)
        raise SystemExit(f"{case.way} did {done} of {case.events} within {PLAY_LIMIT_S:g} s") from None
    seconds = max(each["at_s"] for each in told) - began_s
    return Played(seconds, sum(each["done"] for each in told), tuple(told))


async def _hear_until_done(events: int, chosen: Sequence[Player], told: list[dict[str, Any]]) -> None:
    hearing = {asyncio.create_task(player.hear()): player for player in chosen}
    try:
        while sum(each["done"] for each in told) < events:
            heard, _ = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
            for task in heard:
                told.append(task.result())
                player = hearing.pop(task)
                hearing[asyncio.create_task(player.hear())] = player
    finally:
        for task in hearing:
            task.cancel()
        await asyncio.wait(hearing)

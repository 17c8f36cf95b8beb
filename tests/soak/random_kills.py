"""Many clips, and a kill -9 every one to three seconds until all are there. Real leases, real ticks."""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
from sqlalchemy import func, select

from shared.database.tables import inbox
from shared.events.envelope import Event
from tests.anomaly.inspection import faults
from tests.anomaly.installation import Installation, stop
from tests.anomaly.nursery import Nursery, Victim
from tests.anomaly.strangers import LocalStranger

PAUSE_S = (1.0, 3.0)  # between two kills
LEASE_S = 5
# A clip takes one or two seconds of two cores. One that is interrupted ten times is given up, by design: then
# too much was killed. The large clips of the servers need more time than those of the embedded default.
HANDS = {1: 2, 2: 1}  # by the number of processes
IN_FLIGHT = 8  # requests that wait for their answer: enough that every process has its hands full
ASKED_TWICE = 0.2  # of the requests
# A tick and the clipper's grace are a minute each, and the ticks of dead processes count as taken.
SWEPT_WITHIN_S = 240.0
FINISHED_WITHIN_S = 1800.0


@dataclass(slots=True)
class Numbers:
    """What happened in a random run."""

    clips: int
    workers: int
    kills: int = 0
    asked: int = 0
    answers: int = 0
    most_attempts: int = 0
    taken_up_again: int = 0
    sweeping_s: float = 0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        hands = f"{self.workers} processes of {HANDS[self.workers]} hands"
        return [
            f"- {self.clips} clips, {hands}, leases of {LEASE_S} s",
            f"- {self.kills} kills, one every {PAUSE_S[0]:.0f} to {PAUSE_S[1]:.0f} s",
            f"- {self.asked} requests, some for the same clip again; {self.answers} answers heard",
            f"- {self.taken_up_again} requests were taken up more than once, one {self.most_attempts} times",
            f"- Spool's own ticks swept what was half-written, {self.sweeping_s:.0f} s after the last clip",
            f"- wrong: {len(self.wrong)}",
        ]


async def kill_at_random(installation: Installation, nursery: Nursery, *, clips: int) -> Numbers:
    """Run it. What is wrong is in the numbers."""
    # The embedded default has one process; a second one would be refused.
    workers = 1 if isinstance(installation.stranger, LocalStranger) else 2
    numbers = Numbers(clips, workers)
    fleet = Fleet(installation, nursery, numbers)
    # What was done here before is none of this run's.
    await installation.stranger.listen()
    installation.stranger.heard.clear()
    installation.asked.clear()
    for stored in [stored.key async for stored in installation.storage.walk("clips/")]:
        await installation.storage.delete(stored)
    try:
        async with asyncio.timeout(FINISHED_WITHIN_S):
            await fleet.start(workers)
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(fleet.kill_for_ever())
                await _ask_for(installation, numbers)
                killing.cancel()
            await fleet.complete(workers)
            await installation.until(None)
            await _until_swept(installation, numbers)
            await fleet.stop()
    except TimeoutError:
        await nursery.kill_all()
        numbers.wrong.append(f"it was not over after {FINISHED_WITHIN_S:.0f} s")
    numbers.wrong += await faults(installation, installation.asked, nursery, swept=True)
    numbers.answers = len(installation.stranger.heard)
    await _count_attempts(installation, numbers)
    return numbers


@dataclass(slots=True)
class Fleet:
    """Processes of which one is killed now and then, and replaced."""

    installation: Installation
    nursery: Nursery
    numbers: Numbers
    living: list[Victim] = field(default_factory=list)

    async def start(self, workers: int) -> None:
        while len(self.living) < workers:
            environment = self.installation.environment(lease_s=LEASE_S, clipper_hands=HANDS[workers])
            self.living.append(await self.nursery.bear(environment, self.installation.directory))

    async def kill_for_ever(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(*PAUSE_S))
            victim = self.living.pop(0)
            victim.send(signal.SIGKILL)
            if await victim.end() != -signal.SIGKILL:
                self.numbers.wrong.append(f"it ended by itself: {victim.log.read_text()[-3000:]}")
            self.numbers.kills += 1
            await self.start(self.numbers.workers)

    async def complete(self, workers: int) -> None:
        """Have as many as there should be, whenever the killing ended."""
        self.living = [victim for victim in self.living if not victim.has_ended()]
        await self.start(workers)

    async def stop(self) -> None:
        for victim in self.living:
            await stop(victim)


async def _ask_for(installation: Installation, numbers: Numbers) -> None:
    """Ask for one clip after another, some of them twice, and return when all were made."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def ask(number: int) -> None:
        async with slots:
            start_ms = installation.footage.start_ms + 500 + 10 * (number % 100)
            request = installation.request(
                f"clip-{number}-{uuid4().hex[:8]}", start_ms=start_ms, end_ms=start_ms + 4_000
            )
            await _publish(installation, request)
            numbers.asked += 1
            if random.random() < ASKED_TWICE:
                again = request.model_copy(update={"id": random.choice((request.id, uuid4().hex))})
                await _publish(installation, again)
                numbers.asked += 1
            while not await installation.was_answered(str(request.subject)):  # noqa: ASYNC110  # tables have no event
                await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        for number in range(numbers.clips):
            group.create_task(ask(number))


async def _publish(installation: Installation, request: Event) -> None:
    """Publish until it was taken: over HTTP the process that would answer may just be dead."""
    while True:
        try:
            await installation.stranger.publish([request], running=True)
            return
        except (httpx.TransportError, OSError):
            await asyncio.sleep(0.1)


async def _until_swept(installation: Installation, numbers: Numbers) -> None:
    """Wait until Spool's own ticks have removed what the dead left."""
    clock = asyncio.get_running_loop()
    started_s = clock.time()
    while await installation.storage.unfinished() or await installation.journal.rows():
        if clock.time() - started_s > SWEPT_WITHIN_S:
            return  # the inspection tells what is left
        await asyncio.sleep(0.5)
    numbers.sweeping_s = clock.time() - started_s


async def _count_attempts(installation: Installation, numbers: Numbers) -> None:
    ours = inbox.c.subject.in_([request.subject for request in installation.asked])
    async with installation.database.read() as connection:
        most = select(func.max(inbox.c.attempt)).where(ours)
        numbers.most_attempts = (await connection.execute(most)).scalar_one()
    numbers.taken_up_again = await installation.count(inbox, ours, inbox.c.attempt > 1)

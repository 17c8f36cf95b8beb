"""One death and what follows: a process dies at a point, the next one finishes, and nobody can tell."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from uuid import uuid4

from shared.events.envelope import Event
from tests.anomaly.inspection import faults
from tests.anomaly.installation import Installation, stop
from tests.anomaly.killing import KillPoint
from tests.anomaly.nursery import Nursery

CASE_S = 60  # two lives of some seconds each, on a machine that has much else to do


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case. `deaths`: how many of the points were reached."""

    points: tuple[KillPoint, ...]
    deaths: int
    faults: list[str]


async def die_and_recover(
    installation: Installation, nursery: Nursery, *points: KillPoint, with_sources: bool = False
) -> Outcome:
    """Ask for a clip, let a process die at each point in turn, let another finish, and ask again.

    `with_sources`: the sources are announced together with the request, so that it may have to wait for them.
    """
    request = installation.request(f"clip-{uuid4().hex[:12]}")
    try:
        async with asyncio.timeout(CASE_S):
            return await _die_and_recover(installation, nursery, request, points, with_sources)
    except TimeoutError:
        said = (installation.directory / "victim.log").read_text()[-3000:]
        await nursery.kill_all()
        return Outcome(points, len(points), [f"it hangs: {said}"])


async def _die_and_recover(
    installation: Installation,
    nursery: Nursery,
    request: Event,
    points: tuple[KillPoint, ...],
    with_sources: bool,
) -> Outcome:
    clip_id = str(request.subject)
    sources = installation.source_events if with_sources else []
    await installation.stranger.publish([*sources, request], running=False)

    deaths = 0
    for point in points:
        victim = await nursery.bear(installation.environment(), installation.directory, point=point)
        if await installation.until(victim.has_ended, clip_id):
            victim.send(signal.SIGTERM)  # it may still die at its point, while it drains
        code = await victim.end()
        if code not in (0, -signal.SIGKILL):
            return Outcome(points, deaths, [f"it ended with {code}: {victim.log.read_text()[-3000:]}"])
        deaths += code == -signal.SIGKILL
        await installation.let_leases_run_out()

    rescuer = await nursery.bear(installation.environment(), installation.directory)
    await installation.until_ready(rescuer)
    await installation.until(None, clip_id)
    await ask_again(installation, request)
    await stop(rescuer)
    return Outcome(points, deaths, await faults(installation, [request], nursery, answers=2))


async def ask_again(installation: Installation, request: Event) -> None:
    """Repeat a request that was answered: the very event, and a new one for the same clip."""
    anew = request.model_copy(update={"id": uuid4().hex})
    await installation.stranger.publish([request, anew], running=True)
    await installation.until_worked(request, anew)

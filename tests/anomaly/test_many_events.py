"""Ten thousand events and workers that die: none lost, each effect once, no answer under two ids."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.anomaly.road import Road

EVENTS = 10_000
WORKERS = 2
FEWEST, MOST = 500, 1_500  # effects between one death and the next


async def kill_at_random(road: Road) -> None:
    """Kill one worker after the other in the middle of its work, and start another in its place, for ever."""
    reached = 0
    while True:
        reached += random.randint(FEWEST, MOST)
        await road.until_effects(reached)
        await random.choice(road.living()).kill()
        road.deaths += 1
        await road.start_mill()


@pytest.mark.limit(300)  # ten thousand events, on two cores that have much else to do
async def test_ten_thousand_events_lose_nothing_to_workers_that_die(
    road: Road, tell_count: Callable[[object], None]
) -> None:
    await road.start_mills(WORKERS)
    killing = asyncio.create_task(kill_at_random(road))
    await road.ask(EVENTS)
    await road.until_all_is_told()
    killing.cancel()
    await asyncio.wait([killing])
    await road.until_all_is_heard()
    await road.stop()
    truth = await road.truth()
    tell_count(f"{road.deaths} workers killed; {truth}")

    assert truth.faults == []
    assert truth.asked == EVENTS
    assert road.deaths >= EVENTS // MOST

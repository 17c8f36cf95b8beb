"""Die at the n-th moment of a port, for n = 1, 2, 3 … until a process gets through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.anomaly.dying import die_and_recover
from tests.anomaly.installation import Installation
from tests.anomaly.killing import KillPoint
from tests.anomaly.nursery import Nursery

MOST_MOMENTS = 2_000  # of one port in one life: far more than there are, and still an end


@dataclass(slots=True)
class Sweep:
    """What was found at one port."""

    port: str
    deaths: int = 0
    last: int = 0  # the first n at which nothing died any more
    wrong: dict[str, list[str]] = field(default_factory=dict)


async def sweep_calls(
    installations: Sequence[Installation],
    nursery: Nursery,
    port: str,
    *,
    first: int = 1,
    stride: int = 1,
) -> Sweep:
    """Visit every `stride`-th moment. Several installations share the work, each with one case at a time.

    Every other case announces the sources together with the request.
    """
    sweep = Sweep(port)
    numbers = iter(range(first, MOST_MOMENTS, stride))
    async with asyncio.TaskGroup() as group:
        for installation in installations:
            group.create_task(_sweep_in(installation, nursery, sweep, numbers))
    return sweep


async def _sweep_in(
    installation: Installation, nursery: Nursery, sweep: Sweep, numbers: Iterator[int]
) -> None:
    for number in numbers:
        if sweep.last:
            return
        point = KillPoint(sweep.port, number)
        outcome = await die_and_recover(installation, nursery, point, with_sources=number % 2 == 0)
        sweep.deaths += outcome.deaths
        if outcome.faults:
            sweep.wrong[str(point)] = outcome.faults
        if not outcome.deaths:
            sweep.last = number


async def open_copies(
    stack: AsyncExitStack, template: Installation, number: int, *, name: str
) -> list[Installation]:
    """Open copies of an embedded installation beside it. It has to be stopped."""
    return [
        await stack.enter_async_context(template.copy(template.directory.with_name(f"{name}-{index}")))
        for index in range(number)
    ]

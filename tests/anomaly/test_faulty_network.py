"""A bad network between Spool and its broker, and between Spool and its database, while work flows.

One worker stands behind the bad line, another one does not: so what the first could not keep is taken over,
and what it says late comes when somebody else has long done the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.anomaly.road import Road
from tests.integration.tcp_proxy import TcpProxy, open_proxy_to

LEASE_S = 2.0  # of who stands behind the line: shorter than what befalls it
STEADY_S = 10.0  # of the other one, who keeps it on a busy machine as well
LONGER_THAN_A_LEASE_S = 3.0
A_WHILE_S = 1.0
LATENCY_S = 0.05
LITTLE = 20  # requests, asked again and again while the line is bad


async def slow(proxy: TcpProxy) -> None:
    proxy.latency_s = LATENCY_S
    await asyncio.sleep(A_WHILE_S)
    proxy.latency_s = 0


async def cut(proxy: TcpProxy) -> None:
    for _ in range(4):
        proxy.cut()
        await asyncio.sleep(A_WHILE_S / 2)


async def late(proxy: TcpProxy) -> None:
    """Let everything stand still for longer than a lease, and then arrive."""
    proxy.hold()
    await asyncio.sleep(LONGER_THAN_A_LEASE_S)
    proxy.release()
    await asyncio.sleep(A_WHILE_S)


async def half_open(proxy: TcpProxy) -> None:
    """Let the server forget the connections, and nobody tell Spool."""
    proxy.forget()
    await asyncio.sleep(LONGER_THAN_A_LEASE_S)
    proxy.cut()
    await asyncio.sleep(A_WHILE_S)


async def away(proxy: TcpProxy) -> None:
    await proxy.refuse()
    await asyncio.sleep(LONGER_THAN_A_LEASE_S)
    await proxy.accept()
    await asyncio.sleep(A_WHILE_S)


EVILS: tuple[Callable[[TcpProxy], Awaitable[None]], ...] = (slow, cut, late, half_open, away)


async def asking(road: Road, over: asyncio.Event) -> None:
    while not over.is_set():
        await road.ask(LITTLE)
        await asyncio.sleep(A_WHILE_S / 4)


@pytest.mark.limit(120)  # a quarter of a minute of outages, and what they leave to be done
@pytest.mark.parametrize("side", ["bus", "database"])
async def test_a_bad_line_loses_nothing_and_repeats_nothing(
    road: Road, side: str, tell_count: Callable[[object], None]
) -> None:
    async with open_proxy_to(getattr(road.orders, side)) as (proxy, through):
        changed: dict[str, Any] = {side: through}
        await road.start_mills(1, lease_s=LEASE_S, **changed)  # behind the line
        await road.start_mills(1, lease_s=STEADY_S)
        over = asyncio.Event()
        flow = asyncio.create_task(asking(road, over))
        for evil in EVILS:
            await evil(proxy)
        over.set()
        await flow
        await road.until_all_is_heard()
        # It works again through the line that was mended, and by itself.
        await road.mills[1].stop()
        await road.ask(LITTLE)
        await road.until_all_is_heard()
        await road.stop()
    truth = await road.truth()
    tell_count(truth)

    assert truth.faults == []


@pytest.mark.limit(120)  # half a minute until Spool gives a silent connection to PostgreSQL up
@pytest.mark.parametrize(("side", "options"), [("bus", "?heartbeat=3"), ("database", "")])
async def test_a_line_that_nobody_says_is_dead_is_given_up_by_spool(
    road: Road, side: str, options: str, tell_count: Callable[[object], None]
) -> None:
    async with open_proxy_to(getattr(road.orders, side)) as (proxy, through):
        changed: dict[str, Any] = {side: through + options}
        await road.start_mills(1, **changed)
        await road.ask(LITTLE)
        await road.until_all_is_heard()
        proxy.forget()
        await road.ask(LITTLE)
        await road.until_all_is_heard()
        await road.stop()
    truth = await road.truth()
    tell_count(truth)

    assert truth.faults == []

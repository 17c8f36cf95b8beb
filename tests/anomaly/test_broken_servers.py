"""What Spool stands on is killed, restarted or deleted under load: none lost, each effect once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from sqlalchemy import func

from shared.database.tables import inbox
from tests.anomaly.road import LOOK_S, Road, open_road
from tests.anomaly.servers import PostgresServer, RabbitNode

WORKERS = 2
LITTLE = 40  # requests, asked again and again while a server is broken
BREATH_S = 0.3


@asynccontextmanager
async def load(road: Road) -> AsyncIterator[None]:
    """Ask without end for as long as this lasts; then wait until everything was heard, and more."""
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            await road.ask(LITTLE)
            await asyncio.sleep(BREATH_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        await road.until_effects(LITTLE)
        try:
            yield
        finally:
            over.set()
    await road.ask(LITTLE)
    await road.until_all_is_heard()
    await road.stop()


@pytest.mark.limit(180)  # a broker needs some seconds for each of its starts
async def test_a_broker_that_dies_and_comes_back(
    tmp_path: Path, postgres_url: str, lone_node: RabbitNode, tell_count: Callable[[object], None]
) -> None:
    async with open_road(tmp_path, database=postgres_url, bus=lone_node.url) as road:
        await road.start_mills(WORKERS)
        async with load(road):
            await lone_node.kill()
            await lone_node.start()
            await road.until_effects(await road.effects() + LITTLE)
            await lone_node.stop()
            await lone_node.start()
        truth = await road.truth()
    tell_count(truth)

    assert truth.faults == []


@pytest.mark.limit(120)
async def test_a_database_that_is_ended_without_a_word_and_comes_back(
    tmp_path: Path, amqp_url: str, own_postgres: PostgresServer, tell_count: Callable[[object], None]
) -> None:
    async with open_road(tmp_path, database=own_postgres.url, bus=amqp_url) as road:
        await road.start_mills(WORKERS)
        async with load(road):
            for _ in range(2):
                await own_postgres.stop_immediately()
                await asyncio.sleep(BREATH_S)
                await own_postgres.start()
                await road.until_effects(await road.effects() + LITTLE)
        truth = await road.truth()
    tell_count(truth)

    assert truth.faults == []


@pytest.mark.limit(80)  # joining takes some seconds for each node
async def test_the_loss_of_the_node_that_leads_the_queue(
    tmp_path: Path, postgres_url: str, nodes: list[RabbitNode], tell_count: Callable[[object], None]
) -> None:
    first, *others = nodes
    for node in others:
        await node.join(first)
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    async with open_road(tmp_path, database=postgres_url, bus=f"amqp://guest:guest@{hosts}/") as road:
        leaders = await first.control("list_queues", "name", "leader")
        await road.start_mills(WORKERS)
        async with load(road):
            await first.kill()
            await road.until_effects(await road.effects() + 5 * LITTLE)
            survived = await others[0].control("list_queues", "name", "leader")
            await first.start()
        truth = await road.truth()
    tell_count(truth)

    assert leaders.count(first.node) == len(leaders.splitlines()) - 1
    assert survived.count(first.node) == 0
    assert truth.faults == []


@pytest.mark.parametrize(
    "hands", [pytest.param(32, id="while it waits for more"), pytest.param(1, id="while its hands are full")]
)
async def test_a_queue_deleted_under_its_consumer(
    road: Road, amqp_url: str, hands: int, tell_count: Callable[[object], None]
) -> None:
    await road.start_mills(1, hands=hands, work_s=0.02)
    await road.ask(10 * LITTLE)
    await road.until_effects(1)
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        deleted = await channel.queue_delete(f"{road.orders.service}.clip_requested")
        gone = deleted.message_count or 0
        before = len(road.asked)
        await road.ask(LITTLE)
        new = set(road.asked[before:])
        while not new <= set(road.heard):  # noqa: ASYNC110  # another task hears them
            await asyncio.sleep(LOOK_S)
    await road.stop()
    truth = await road.truth()
    kept = await road.count(func.count(inbox.c.id))
    tell_count(f"{gone} were deleted with the queue, {kept} were kept; {truth}")

    # What lay in the queue is lost with it, at most one handful on its way included. All else came in, and
    # nothing that came in was lost.
    assert kept >= before - gone - hands + LITTLE
    assert (truth.effects, truth.affected, truth.answered, truth.ids) == (kept, kept, kept, kept)
    assert (truth.unfinished, truth.dead, truth.untold) == (0, 0, 0)

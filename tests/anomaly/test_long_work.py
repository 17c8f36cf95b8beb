"""Work that takes longer than any broker would wait: it is done once, and nothing waits unacknowledged.

`make soak long_work` does the same for minutes, on a RabbitMQ whose `consumer_timeout` is one minute.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.anomaly.mill import router_of
from tests.anomaly.road import LOOK_S, Road, open_road
from tests.anomaly.servers import RabbitNode

LEASE_S = 4.0  # a busy machine has to keep it
WORK_S = 9.0  # more than two leases
PIECES = 3
VISIBILITY_S = 2


async def held_by_the_broker(node: RabbitNode, queue: str) -> list[int]:
    """Return how many messages of a queue are ready, and how many were delivered and not acknowledged."""
    told = await node.control("list_queues", "name", "messages_ready", "messages_unacknowledged")
    (line,) = [line for line in told.splitlines() if line.split()[0] == queue]
    return [int(word) for word in line.split()[1:]]


async def test_a_delivery_is_acknowledged_long_before_its_work_ends(
    tmp_path: Path, postgres_url: str, lone_node: RabbitNode
) -> None:
    async with open_road(tmp_path, database=postgres_url, bus=lone_node.url) as road:
        (mill,) = await road.start_mills(1, lease_s=LEASE_S, work_s=WORK_S)
        await road.ask(PIECES)
        await mill.until_said("begun", PIECES)
        queue = f"{road.orders.service}.clip_requested"
        while await held_by_the_broker(lone_node, queue) != [0, 0]:  # noqa: ASYNC110  # a queue has no event
            await asyncio.sleep(LOOK_S)
        done_by_then = await road.effects()
        await road.until_all_is_heard()
        await road.stop()
        truth = await road.truth()

    assert done_by_then == 0
    assert truth.faults == []
    assert road.begun == PIECES


async def test_the_work_of_a_dead_worker_is_taken_over_after_its_lease(road: Road) -> None:
    (first,) = await road.start_mills(1, lease_s=LEASE_S, work_s=WORK_S / 3)
    await road.ask(PIECES)
    await first.until_said("begun", PIECES)
    await first.kill()
    await road.start_mills(1, lease_s=LEASE_S, work_s=WORK_S / 3)
    await road.until_all_is_heard()
    await road.stop()
    truth = await road.truth()

    assert truth.faults == []
    assert (await road.most_attempts(), road.begun) == (2, 2 * PIECES)


async def test_on_sqs_work_outlasts_every_visibility(tmp_path: Path, postgres_url: str, aws_url: str) -> None:
    async with open_road(tmp_path, database=postgres_url, bus=aws_url) as road:
        (mill,) = await road.start_mills(1, lease_s=LEASE_S, work_s=WORK_S, visibility_s=VISIBILITY_S)
        await road.ask(PIECES)
        await mill.until_said("begun", PIECES)
        assert road.bus is not None
        (asked, *_) = router_of(road.orders).subscriptions
        come_again = await road.bus.receive(asked, at_most=PIECES, wait_s=VISIBILITY_S + 1)
        done_by_then = await road.effects()
        await road.until_all_is_heard()
        await road.stop()
        truth = await road.truth()

        assert (done_by_then, come_again) == (0, [])
        assert truth.faults == []
        assert (await road.most_attempts(), road.begun) == (1, PIECES)

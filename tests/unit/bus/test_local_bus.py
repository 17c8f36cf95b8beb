"""What only the local bus does: it shares commits, tidies its file, and survives cancelled callers."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.bus.ledger import Ledger
from shared.bus.local import MAX_GROUP, LocalBus
from shared.bus.message import Message, Subscription
from shared.kernel.errors import Unavailable

ASKED = Subscription("clipper", "asked", ("clip_requested",), hands=1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
async def bus(path: Path) -> AsyncIterator[LocalBus]:
    bus = await LocalBus.open(path)
    await bus.declare([ASKED])
    yield bus
    await bus.close()


def command(message_id: str, body: bytes = b"{}") -> Message:
    return Message(message_id, "clip_requested", body, "application/json", mandatory=True)


async def test_publishers_that_come_together_are_all_confirmed_in_their_order(bus: LocalBus) -> None:
    count = 3 * MAX_GROUP
    await asyncio.gather(*(bus.publish([command(f"{number}")]) for number in range(count)))
    deliveries = await bus.receive(ASKED, at_most=count, wait_s=0)

    assert [delivery.message_id for delivery in deliveries] == [f"{number}" for number in range(count)]


class CountingLedger(Ledger):
    """A ledger that remembers how many jobs shared each of its transactions."""

    def __init__(self) -> None:
        super().__init__(None)
        self.groups: list[int] = []

    def run(self, jobs: Sequence[Callable[[], object]]) -> list[object]:
        self.groups.append(len(jobs))
        return super().run(jobs)


async def test_what_comes_while_the_thread_waits_for_its_turn_shares_its_commit() -> None:
    thread, turn = ThreadPoolExecutor(max_workers=1), threading.Event()
    ledger = await asyncio.get_running_loop().run_in_executor(thread, CountingLedger)
    bus = LocalBus(ledger, thread, durable=False, unrouted=lambda _: None)
    thread.submit(turn.wait, 10)

    first = asyncio.create_task(bus.declare([ASKED]))
    for _ in range(3):
        await asyncio.sleep(0)  # the loop has called the thread by now
    second = asyncio.create_task(bus.publish([command("a")]))
    await asyncio.sleep(0)
    turn.set()
    await asyncio.gather(first, second)
    await bus.close()

    assert ledger.groups == [2]


async def test_what_is_given_back_comes_before_what_was_read_ahead(bus: LocalBus) -> None:
    await bus.publish([command(f"{number}") for number in range(10)])
    first = await bus.receive(ASKED, at_most=1, wait_s=0)
    await bus.give_back(first)
    deliveries = await bus.receive(ASKED, at_most=10, wait_s=0)

    assert [delivery.message_id for delivery in deliveries] == [f"{number}" for number in range(10)]
    assert [delivery.redelivered for delivery in deliveries] == [True] + 9 * [False]


async def test_a_publisher_that_is_cancelled_wakes_the_receiver_all_the_same(bus: LocalBus) -> None:
    receiving = asyncio.create_task(bus.receive(ASKED, at_most=1, wait_s=30))
    publishing = asyncio.create_task(bus.publish([command("a")]))
    await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)

    assert [delivery.message_id for delivery in await receiving] == ["a"]


async def test_an_acknowledgement_whose_caller_is_cancelled_frees_the_hand_all_the_same(
    bus: LocalBus,
) -> None:
    one_hand = Subscription("clipper", "asked", ("clip_requested",), hands=1)
    await bus.publish([command("a"), command("b")])
    taken = await bus.receive(one_hand, at_most=1, wait_s=0)
    receiving = asyncio.create_task(bus.receive(one_hand, at_most=1, wait_s=30))
    acknowledging = asyncio.create_task(bus.acknowledge(taken))
    await asyncio.sleep(0)
    acknowledging.cancel()
    await asyncio.gather(acknowledging, return_exceptions=True)

    assert [delivery.message_id for delivery in await receiving] == ["b"]


async def test_an_acknowledgement_that_fails_after_its_caller_left_can_be_repeated(
    bus: LocalBus, path: Path
) -> None:
    await bus.publish([command("a")])
    deliveries = await bus.receive(ASKED, at_most=1, wait_s=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a backup that takes too long
    acknowledging = asyncio.create_task(bus.acknowledge(deliveries))
    publishing = asyncio.create_task(bus.publish([command("b")]))  # its end is the end of both
    await asyncio.sleep(0)
    acknowledging.cancel()
    await asyncio.gather(acknowledging, return_exceptions=True)
    with pytest.raises(Unavailable, match="locked"):
        await publishing
    other.execute("ROLLBACK")
    await bus.acknowledge(deliveries)
    (count,) = other.execute("SELECT count(*) FROM message").fetchone()
    other.close()

    assert count == 0


async def test_the_file_shrinks_while_nothing_else_is_to_be_done(bus: LocalBus, path: Path) -> None:
    await bus.publish([command(f"{number}", bytes(100_000)) for number in range(200)])
    deliveries = await bus.receive(ASKED, at_most=200, wait_s=0)
    await bus.acknowledge(deliveries)
    async with asyncio.timeout(30):
        while path.stat().st_size > 20_000_000 // 3:
            await bus.receive(ASKED, at_most=1, wait_s=0.01)


async def test_jobs_that_wait_when_the_bus_closes_are_finished(path: Path) -> None:
    bus = await LocalBus.open(path)
    await bus.declare([ASKED])
    publishing = [asyncio.create_task(bus.publish([command(f"{number}")])) for number in range(50)]
    await asyncio.sleep(0)
    await bus.close()
    await asyncio.gather(*publishing)
    with sqlite3.connect(path) as file:
        (count,) = file.execute("SELECT count(*) FROM message").fetchone()
    file.close()

    assert count == 50


async def test_a_failed_acknowledgement_can_be_repeated(bus: LocalBus, path: Path) -> None:
    await bus.publish([command("a")])
    deliveries = await bus.receive(ASKED, at_most=1, wait_s=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a backup that takes too long
    with pytest.raises(Unavailable, match="locked"):
        await bus.acknowledge(deliveries)
    other.execute("ROLLBACK")
    await bus.acknowledge(deliveries)
    (count,) = other.execute("SELECT count(*) FROM message").fetchone()
    other.close()

    assert count == 0

"""A long range of an object comes in pieces, some at the same time: none too many, and never a mixture."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from shared.kernel.errors import Conflict, Corrupt, Unavailable
from shared.storage.port import WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_limits import S3Limits
from tests.integration.s3_gate import CHUNK_BYTES, Line, Proxy, S3Gate, opened_behind
from tests.traffic import until

MIB = 1 << 20
CONTENT = Random(7).randbytes(9 * MIB + 11)
READERS = 3
LIMITS = S3Limits(attempts=2, wait_s=0.01, wait_max_s=0.05, readers=READERS, piece_bytes=MIB)
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)", re.IGNORECASE)


@dataclass
class Valve(S3Gate):
    """Notes each range that is asked for, and holds the answers back from the `held_from`-th on."""

    asked: list[tuple[int, int]] = field(default_factory=list)
    held_from: int = 1000
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _held: set[Line] = field(default_factory=set)

    async def pass_requests(self, line: Line) -> None:
        while chunk := await line.client.read(CHUNK_BYTES):
            if chunk.startswith(b"GET ") and (found := _RANGE.search(chunk)):
                self.asked.append((int(found[1]), int(found[2]) + 1))
                if len(self.asked) >= self.held_from:
                    self._held.add(line)
            line.to_server.write(chunk)
            await line.to_server.drain()
        raise EOFError

    async def pass_answers(self, line: Line) -> None:
        while chunk := await line.server.read(CHUNK_BYTES):
            if line in self._held:
                await self.released.wait()
            line.to_client.write(chunk)
            await line.to_client.drain()
        raise EOFError


@dataclass
class Slow(S3Gate):
    """Lets each answer wait in its middle."""

    wait_s: float = 0

    async def pass_answers(self, line: Line) -> None:
        while chunk := await line.server.read(CHUNK_BYTES):
            line.to_client.write(chunk[: CHUNK_BYTES // 2])
            if b"206 Partial" in chunk[:40]:
                await asyncio.sleep(self.wait_s)
            line.to_client.write(chunk[CHUNK_BYTES // 2 :])
            await line.to_client.drain()
        raise EOFError


@dataclass
class Way:
    """A store behind a valve, and the same store reached directly. Both hold `CONTENT` as `a`."""

    valve: Valve
    storage: S3Storage
    direct: S3Storage

    async def fetch(self, start: int, end: int) -> bytes:
        async with self.storage.read("a", start=start, end=end) as chunks:
            return b"".join([chunk async for chunk in chunks])


@pytest.fixture
async def way(s3_url: str) -> AsyncIterator[Way]:
    valve = Valve()
    async with opened_behind(valve, s3_url, LIMITS) as (storage, direct):
        await store(direct, CONTENT)
        yield Way(valve, storage, direct)


async def store(storage: S3Storage, content: bytes) -> None:
    async with storage.writer("a", WriteOptions()) as writer:
        await writer.write(content)


async def test_pieces_come_in_order_and_none_twice(way: Way) -> None:
    assert await way.fetch(5, len(CONTENT)) == CONTENT[5:]
    starts = [5 + number * MIB for number in range(10)]
    assert sorted(way.valve.asked) == list(zip(starts, [*starts[1:], len(CONTENT)], strict=True))


async def test_pieces_are_asked_for_while_others_are_on_their_way_and_no_more_than_allowed(way: Way) -> None:
    way.valve.held_from = 3
    reading = asyncio.create_task(way.fetch(0, len(CONTENT)))
    await until(lambda: len(way.valve.asked) == 4)  # one taken lets one come, two taken two
    await asyncio.sleep(0.1)
    held, is_waiting = list(way.valve.asked), not reading.done()
    way.valve.released.set()

    content = await reading

    assert content == CONTENT
    assert is_waiting
    assert held == [(number * MIB, (number + 1) * MIB) for number in range(4)]


async def test_whoever_takes_no_more_gets_no_more(way: Way) -> None:
    async with way.storage.read("a", start=0, end=len(CONTENT)) as chunks:
        first = await anext(chunks)
        await asyncio.sleep(0.1)
        after_a_chunk = len(way.valve.asked)
        taken = len(first)
        while taken < 5 * MIB:
            taken += len(await anext(chunks))
        await asyncio.sleep(0.1)

    assert after_a_chunk == 1
    assert len(way.valve.asked) <= 5 + READERS - 1


async def test_whoever_leaves_leaves_nothing_behind(way: Way) -> None:
    way.valve.held_from = 3
    before = asyncio.all_tasks()
    async with way.storage.read("a", start=0, end=len(CONTENT)) as chunks:
        taken = 0
        while taken < 2 * MIB:
            taken += len(await anext(chunks))
        await until(lambda: len(way.valve.asked) == 4)
    left = {task for task in asyncio.all_tasks() - before if "_fetch" in repr(task)}

    assert left == set()


async def test_an_object_that_is_replaced_between_two_pieces_is_a_conflict(way: Way) -> None:
    async with way.storage.read("a", start=0, end=len(CONTENT)) as chunks:
        await anext(chunks)
        await store(way.direct, bytes(len(CONTENT)))
        with pytest.raises(Conflict):
            _ = [chunk async for chunk in chunks]


async def test_a_range_beyond_the_end_is_refused_before_any_byte_of_it(way: Way) -> None:
    with pytest.raises(Corrupt, match=f"ends at byte {len(CONTENT)}"):
        await way.fetch(0, len(CONTENT) + 1)
    assert way.storage.bytes_read == 0


async def test_a_short_range_is_one_request(way: Way) -> None:
    assert await way.fetch(MIB, 3 * MIB) == CONTENT[MIB : 3 * MIB]
    assert way.valve.asked == [(MIB, 3 * MIB)]


async def test_a_piece_that_breaks_off_goes_on_where_it_broke(s3_url: str) -> None:
    breaking = Proxy(cut_after=[300_000, 700, 500_000, 20_000, 900_000])
    async with opened_behind(breaking, s3_url, replace(LIMITS, attempts=6)) as (storage, direct):
        await store(direct, CONTENT)
        async with storage.read("a", start=0, end=len(CONTENT)) as chunks:
            content = b"".join([chunk async for chunk in chunks])

    assert content == CONTENT
    assert breaking.cuts == 5


async def test_a_piece_that_breaks_off_again_and_again_is_given_up(s3_url: str) -> None:
    breaking = Proxy(cut_after=[700] * 20)
    async with opened_behind(breaking, s3_url, LIMITS) as (storage, direct):
        await store(direct, CONTENT)
        async with storage.read("a", start=0, end=len(CONTENT)) as chunks:
            with pytest.raises(Unavailable, match="again and again"):
                _ = [chunk async for chunk in chunks]


async def test_bytes_that_come_too_slowly_are_given_up_over_all_pieces(s3_url: str) -> None:
    """Each piece alone would be quick enough; all of them together are not."""
    limits = replace(LIMITS, body_s=0.5, slowest_bytes=1 << 30, connect_s=2, read_s=5)
    slow = Slow()
    async with opened_behind(slow, s3_url, limits) as (storage, direct):
        await store(direct, CONTENT)
        slow.wait_s = 0.3
        async with storage.read("a", start=0, end=len(CONTENT)) as chunks:
            with pytest.raises(Unavailable, match="comes too slowly"):
                _ = [chunk async for chunk in chunks]

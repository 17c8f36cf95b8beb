"""One at a time on a broker: the queues of a real Spool have names of their own, the same in every suite.

Two suites on one virtual host would take each other's requests, and remove each other's queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelClosed

TURN = "spool-test-turn"  # a queue that only one connection can have
LOOK_S = 0.2
PATIENCE_S = 600  # for the tests of another suite, one of which has its turn


@asynccontextmanager
async def broker_turn(url: str) -> AsyncIterator[None]:
    """Wait until no other test has a real Spool on this virtual host, and keep the others away."""
    async with await aio_pika.connect(url) as connection:
        async with asyncio.timeout(PATIENCE_S):
            while not await _takes(connection):  # noqa: ASYNC110 - a broker tells nobody that it is free
                await asyncio.sleep(LOOK_S)
        yield


async def _takes(connection: AbstractConnection) -> bool:
    channel = await connection.channel()
    try:
        await channel.declare_queue(TURN, exclusive=True)
    except ChannelClosed:  # another connection has it
        return False
    return True

"""A worker process with the real road and next to no work: what the tests of many events are made with.

`python -m tests.anomaly.mill ORDERS` runs a worker and a relay, as a service does, on the bus and database of
its orders (JSON). Its handler writes one row of `effect` for each request and answers it; both tables of the
truth, the effects and the answers, can then be counted from outside. SIGTERM drains it, SIGKILL does not.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from shared.bus.local import LocalBus
from shared.bus.port import Bus
from shared.bus.rabbitmq import RabbitBus
from shared.bus.sqs import SqsBus
from shared.bus.sqs_receiver import Times
from shared.database.engine import Connection
from shared.database.opening import open_database
from shared.events.clip import ClipNotAvailable, ClipRequested
from shared.inbox.claims import LeaseTimes, release_all_claims
from shared.inbox.outcome import Done, Work
from shared.inbox.router import Route, Router
from shared.inbox.worker import Worker
from shared.kernel.errors import SpoolError
from shared.observability.logging import configure_logging
from shared.outbox.relay import Relay
from shared.outbox.subjects import release_all_subjects
from shared.outbox.writing import append
from shared.runtime.clock import SystemClock

GRACE_S = 10.0
# Without any key: an effect that happens twice is two rows.
effect = Table(
    "effect", MetaData(), Column("clip_id", Text), Column("worker", Text), Column("run", BigInteger)
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a mill works on, and how. `service` is also the name of its exchange."""

    name: str
    bus: str  # an AMQP URL, `aws:…`, or the path of a local bus's file
    database: str
    service: str
    lease_s: float = 5.0  # waited for when a mill was killed; a busy machine has to keep it
    hands: int = 32
    work_s: float = 0.0  # how long each piece of work takes
    visibility_s: int = 60  # on SQS

    @property
    def embedded(self) -> bool:
        return self.bus.startswith("/")

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def router_of(orders: Orders) -> Router:
    """Return the mill's one route, or what declares its queue."""
    handler = partial(grind, orders=orders)
    return Router(orders.service, (Route(ClipRequested, handler, hands=orders.hands, time_limit_s=3600),))


async def grind(data: ClipRequested, *, work: Work, orders: Orders) -> Done:
    """Take its time, then write one row and answer."""
    if orders.work_s:
        print(f"begun {data.clip_id}", flush=True)
        try:
            await asyncio.sleep(orders.work_s)
        except asyncio.CancelledError:
            print(f"stopped {data.clip_id}", flush=True)
            raise

    async def write(connection: Connection) -> None:
        await connection.execute(
            effect.insert().values(clip_id=data.clip_id, worker=orders.name, run=work.attempt)
        )

    answer = ClipNotAvailable(
        clip_id=data.clip_id,
        camera_id=data.camera_id,
        start_timestamp_in_ms=data.start_timestamp_in_ms,
        end_timestamp_in_ms=data.end_timestamp_in_ms,
        missing=(),
    )
    return Done(answer, writes=(write,))


async def open_bus(orders: Orders) -> Bus:
    """Open the bus that the orders name."""
    if orders.embedded:
        return await LocalBus.open(Path(orders.bus))
    if orders.bus.startswith("aws:"):
        return await SqsBus.open(orders.bus, times=Times(visibility_s=orders.visibility_s))
    return await RabbitBus.open(orders.bus, exchange=orders.service)


async def mill(orders: Orders) -> None:
    """Work until SIGTERM, then drain as a service does."""
    clock, router = SystemClock(), router_of(orders)
    lease_ms = round(orders.lease_s * 1000)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with AsyncExitStack() as stack:
        database = await open_database(orders.database, clock=clock, connections=orders.hands + 8)
        stack.push_async_callback(database.close)
        bus = await open_bus(orders)
        stack.push_async_callback(bus.close)
        if orders.embedded:
            await release_all_claims(database)
            await release_all_subjects(database)
        relay = Relay(bus=bus, database=database, clock=clock, name=orders.name, lease_ms=lease_ms)
        worker = Worker(
            router,
            bus=bus,
            database=database,
            clock=clock,
            append=append,
            name=orders.name,
            committed=relay.told,
            times=LeaseTimes.of(lease_ms),
        )
        await bus.declare(router.subscriptions)
        print("ready", flush=True)
        await _run(worker, relay, stopped)


async def _run(worker: Worker, relay: Relay, stopped: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        relaying = group.create_task(relay.run())
        working = group.create_task(worker.run())
        await stopped.wait()
        await worker.drain(GRACE_S)
        await working
        await relay.flush()
        relaying.cancel()


def main() -> None:
    """Run one mill. A dependency that is away at the start ends it: its keeper starts it again."""
    configure_logging(level="info", as_json=True)
    try:
        asyncio.run(mill(Orders(**json.loads(sys.argv[1]))))
    except SpoolError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

"""What Spool stands on goes away in the middle, or what it is fed is poison: it goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from shared.database.tables import State, inbox
from tests.anomaly.inspection import faults
from tests.anomaly.installation import LOOK_S, Installation, stop
from tests.anomaly.nursery import Nursery, Victim
from tests.integration.tcp_proxy import TcpProxy, open_proxy

CLIPS = 6
CUTS = 8
OUTAGE_S = 3.0
PAUSE_S = 0.25  # between two cuts: a clip takes about a second
POISON = (
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"[]",
    b'{"clipId": "poison"}',
    b'{"specversion": "1.0", "id": "%d", "source": "/s", "type": "clip_requested", "data": {"clipId": 7}}',
    b'{"a":' * 5_000,
)
POISONED = 100


@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
async def test_clips_are_made_once_while_the_database_drops_its_connections(
    installation: Installation, nursery: Nursery
) -> None:
    requests = [installation.request(f"clip-{number}") for number in range(CLIPS)]
    await installation.stranger.publish(requests, running=False)
    running = await nursery.bear(installation.environment(), installation.directory)
    await installation.until_ready(running)
    for _ in range(CUTS):
        await asyncio.sleep(PAUSE_S)
        await drop_connections(str(installation.addresses.database))
    await installation.until(running.has_ended, *(str(request.subject) for request in requests))
    await stop(running)

    assert await faults(installation, requests, nursery) == []


async def drop_connections(database: str) -> None:
    """End every connection to a database, as its restart would. Ours come again by themselves."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[TcpProxy]:
    broker = urlsplit(amqp_url)
    async with open_proxy(broker.hostname or "", broker.port or 5672) as opened:
        yield opened


@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
async def test_clips_are_made_once_while_the_broker_drops_its_connections(
    installation: Installation, nursery: Nursery, proxy: TcpProxy
) -> None:
    requests = [installation.request(f"clip-{number}") for number in range(CLIPS)]
    await installation.stranger.publish(requests, running=False)
    broker = urlsplit(str(installation.addresses.bus))
    through = broker._replace(netloc=f"{broker.username}:{broker.password}@127.0.0.1:{proxy.port}").geturl()
    running = await nursery.bear(installation.environment(bus=through), installation.directory)
    await installation.until_ready(running)
    for _ in range(CUTS):
        await asyncio.sleep(PAUSE_S)
        proxy.cut()
    await proxy.refuse()
    await installation.until_not_ready(running)
    await proxy.accept()
    await installation.until_ready(running)
    await installation.until(running.has_ended, *(str(request.subject) for request in requests))
    await stop(running)

    assert await faults(installation, requests, nursery) == []


@pytest.mark.limit(120)  # the store's client tries some seconds by itself before it says that nobody is there
@pytest.mark.parametrize("addresses", ["rabbitmq-postgresql-s3"], indirect=True)
async def test_an_outage_of_the_store_burns_no_attempts(installation: Installation, nursery: Nursery) -> None:
    requests = [installation.request(f"clip-{number}") for number in range(CLIPS)]
    store = urlsplit(str(installation.addresses.storage))
    endpoint = urlsplit(parse_qs(store.query)["endpoint"][0])
    async with open_proxy(endpoint.hostname or "", endpoint.port or 80) as proxy:
        through = str(installation.addresses.storage).replace(endpoint.netloc, f"127.0.0.1:{proxy.port}")
        running = await nursery.bear(installation.environment(storage=through), installation.directory)
        await installation.until_ready(running)
        await installation.stranger.publish(requests[:1], running=True)
        await installation.until(running.has_ended, "clip-0")
        await proxy.refuse()
        await installation.stranger.publish(requests[1:], running=True)
        await until_paused(installation, running)
        at_the_worst = await installation.count(inbox, inbox.c.state == State.DEAD)
        await proxy.accept()
        await installation.until(running.has_ended, *(str(request.subject) for request in requests))
        await stop(running)

    assert at_the_worst == 0
    assert await installation.count(inbox, inbox.c.attempt > 1) == 0
    assert await faults(installation, requests, nursery) == []


async def until_paused(installation: Installation, running: Victim) -> None:
    """Wait until work has found the store away, and the outage has lasted for a while after that."""
    while not await installation.count(inbox, inbox.c.failing_since_ms.is_not(None)):
        assert not running.has_ended(), running.log.read_text()[-4000:]
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(OUTAGE_S)


async def test_a_flood_of_poison_holds_up_nobody(installation: Installation, nursery: Nursery) -> None:
    request = installation.request("behind-it")
    bodies = [POISON[number % len(POISON)].replace(b"%d", b"%d" % number) for number in range(POISONED)]
    await installation.stranger.publish_bodies(bodies, "clip_requested")
    await installation.stranger.publish([request], running=False)
    running = await nursery.bear(installation.environment(), installation.directory)
    await installation.until(running.has_ended, "behind-it")
    await stop(running)

    dead = inbox.c.state == State.DEAD
    assert await installation.count(inbox, dead, inbox.c.reason.is_not(None)) == POISONED
    assert await installation.count(inbox, dead, inbox.c.attempt > 0) == 0
    assert await installation.forget_the_dead() == POISONED
    assert await faults(installation, [request], nursery) == []

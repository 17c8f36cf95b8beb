"""The contract of the bus when it is closed, opened anew, or cut off: what stays, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus.message import Subscription
from shared.bus.port import Bus
from shared.kernel.errors import Unavailable
from tests.contract.bus_brokers import (
    AwsBroker,
    Broker,
    RabbitBroker,
    subscribe,
)
from tests.contract.bus_traffic import arranged, broker_of, ids_of, receive_nothing
from tests.integration.tcp_proxy import TcpProxy, open_proxy
from tests.traffic import SOON_S, command, receive, until


async def test_what_is_acknowledged_is_forgotten(durable: Broker, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command(f"{number}") for number in range(5)])
    deliveries = await receive(bus, asked, 5)
    # Two in a row, one that stays, and one out of order.
    await bus.acknowledge([deliveries[4], deliveries[0], deliveries[1]])
    await bus.close()
    bus = await durable.open()
    await bus.declare([asked])
    left = await receive(bus, asked, 2)

    assert set(ids_of(left)) == set(ids_of(deliveries[2:4]))
    assert all(delivery.redelivered for delivery in left)
    assert await receive_nothing(bus, asked)

    await bus.close()


async def test_what_was_never_received_outlives_the_bus(durable: Broker, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command(f"{number}") for number in range(20)])
    await bus.close()
    bus = await durable.open()
    # The binding outlives it too: a publisher may be there before the service.
    await bus.publish([command("20")])
    await bus.declare([asked])
    arrived: list[str | None] = []
    while len(arrived) < 21:
        deliveries = await bus.receive(asked, at_most=8, wait_s=SOON_S)
        arrived += [delivery.message_id for delivery in deliveries]
        await bus.acknowledge(deliveries)
    await bus.close()

    assert arranged(durable, arrived) == arranged(durable, (f"{number}" for number in range(21)))


async def test_a_delivery_of_a_former_bus_is_skipped_and_comes_again(durable: Broker, service: str) -> None:
    asked = subscribe(service, "asked", "clip_requested")
    bus = await durable.open()
    await bus.declare([asked])
    await bus.publish([command("a")])
    lost = await receive(bus, asked, 1)
    await bus.close()
    bus = await durable.open()
    await bus.declare([asked])
    await bus.acknowledge(lost)
    await bus.give_back(lost)

    assert [delivery.message_id for delivery in await receive(bus, asked, 1)] == ["a"]

    await bus.close()


async def test_health_says_what_is_so(bus: Bus, asked: Subscription) -> None:
    await bus.receive(asked, at_most=1, wait_s=0)

    assert (bus.health().connected, bus.health().consuming, bus.health().reason) == (True, True, "")

    await bus.stop_receiving()

    assert (bus.health().connected, bus.health().consuming) == (True, False)
    assert bus.health().reason

    await bus.close()

    assert not bus.health().connected
    assert bus.health().reason


async def test_a_closed_bus_says_so_and_may_be_closed_again(bus: Bus, asked: Subscription) -> None:
    await bus.close()
    await bus.close()

    with pytest.raises(Unavailable):
        await bus.publish([command()])


@pytest.fixture(params=["rabbitmq", "aws"])
async def remote(
    request: pytest.FixtureRequest, tmp_path: Path, service: str
) -> AsyncIterator[tuple[Bus, TcpProxy]]:
    """Return a bus on a broker elsewhere, and the way to it."""
    broker = broker_of(request.param, request, tmp_path)
    assert isinstance(broker, RabbitBroker | AwsBroker)
    host, port = broker.server
    async with open_proxy(host, port) as proxy:
        broker.move(proxy.port)
        bus = await broker.open()
        yield bus, proxy
        await bus.close()
    broker.move(port)
    await broker.destroy({service})


async def test_while_the_broker_is_away_everybody_is_told_and_afterwards_it_goes_on(
    remote: tuple[Bus, TcpProxy], service: str
) -> None:
    bus, proxy = remote
    asked = subscribe(service, "asked", "clip_requested")
    await bus.declare([asked])
    await bus.publish([command("before")])
    await proxy.refuse()
    with pytest.raises(Unavailable):
        await bus.publish([command("lost")])

    await until(lambda: not bus.health().connected)
    assert bus.health().reason

    await proxy.accept()
    await until(lambda: bus.health().connected and bus.health().consuming)
    await bus.publish([command("after")])
    arrived = await receive(bus, asked, 2)
    await bus.acknowledge(arrived)

    assert set(ids_of(arrived)) == {"before", "after"}
    assert await receive_nothing(bus, asked)


async def test_a_bus_closes_in_time_while_the_broker_is_away(
    remote: tuple[Bus, TcpProxy], service: str
) -> None:
    bus, proxy = remote
    asked = subscribe(service, "asked", "clip_requested")
    await bus.declare([asked])
    await bus.publish([command("taken")])
    await receive(bus, asked, 1)
    await proxy.refuse()
    async with asyncio.timeout(SOON_S):
        await bus.close()

    assert not bus.health().connected
    await proxy.accept()

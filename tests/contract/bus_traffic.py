"""What the tests of the bus send and receive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus
from tests.contract.bus_brokers import (
    AwsBroker,
    Broker,
    LocalBroker,
    RabbitBroker,
)

SOON_S = 20.0  # for what comes at once: only a transport that is broken needs all of it
NOTHING_S = 0.3  # how long to look for what must not come


def broker_of(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    match request.param:
        case "local-file":
            return LocalBroker(tmp_path / "bus.db")
        case "local-memory":
            return LocalBroker(None)
        case "aws":
            return AwsBroker(request.getfixturevalue("aws_url"))
        case _:
            return RabbitBroker(request.getfixturevalue("amqp_url"))


def arranged(broker: Broker, ids: Iterable[str | None]) -> list[str]:
    """Return ids as they came, sorted where the transport promises no order."""
    found = [str(each) for each in ids]
    return found if broker.keeps_order else sorted(found)


def ids_of(deliveries: Iterable[Delivery]) -> list[str | None]:
    return [delivery.message_id for delivery in deliveries]


def command(message_id: str = "1", body: bytes = b"{}", name: str = "clip_requested") -> Message:
    return Message(message_id, name, body, "application/cloudevents+json", mandatory=True)


def fact(message_id: str = "1", name: str = "clip_available") -> Message:
    return Message(message_id, name, b"{}", "application/cloudevents+json", mandatory=False)


def headed(headers: dict[str, str]) -> Message:
    return Message("1", "clip_requested", b"{}", "text/plain", mandatory=True, headers=headers)


async def receive(bus: Bus, subscription: Subscription, count: int) -> list[Delivery]:
    """Receive exactly `count` deliveries, in as many calls as it takes."""
    deliveries: list[Delivery] = []
    while len(deliveries) < count:
        found = await bus.receive(subscription, at_most=count - len(deliveries), wait_s=SOON_S)
        assert found, f"{len(deliveries)} of {count} came"
        deliveries += found
    return deliveries


async def receive_nothing(bus: Bus, subscription: Subscription) -> bool:
    return await bus.receive(subscription, at_most=8, wait_s=NOTHING_S) == []


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - health is a reading: no event tells that it has changed
            await asyncio.sleep(0.02)

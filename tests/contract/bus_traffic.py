"""What the tests of the bus send and receive."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import pytest

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus
from tests.contract.bus_brokers import (
    AwsBroker,
    Broker,
    LocalBroker,
    RabbitBroker,
)
from tests.traffic import NOTHING_S


def broker_of(transport: str, request: pytest.FixtureRequest, directory: Path) -> Broker:
    match transport:
        case "local-file":
            return LocalBroker(directory / f"{uuid4().hex}.db")
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


def fact(message_id: str = "1", name: str = "clip_available") -> Message:
    return Message(message_id, name, b"{}", "application/cloudevents+json", mandatory=False)


def headed(headers: dict[str, str]) -> Message:
    return Message("1", "clip_requested", b"{}", "text/plain", mandatory=True, headers=headers)


async def receive_nothing(bus: Bus, subscription: Subscription) -> bool:
    return await bus.receive(subscription, at_most=8, wait_s=NOTHING_S) == []

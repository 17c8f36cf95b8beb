"""The transports that the bus contract is held against, each with a bus that is open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus.message import Subscription
from shared.bus.port import Bus
from tests.contract.bus_brokers import (
    Broker,
    new_service,
    subscribe,
)
from tests.contract.bus_traffic import broker_of


@pytest.fixture
def service() -> str:
    return new_service()


@pytest.fixture(params=["local-file", "local-memory", "rabbitmq", "aws"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path, service: str) -> AsyncIterator[Broker]:
    broker = broker_of(request.param, request, tmp_path)
    yield broker
    await broker.destroy({service})


@pytest.fixture(params=["local-file", "rabbitmq", "aws"])
async def durable(request: pytest.FixtureRequest, tmp_path: Path, service: str) -> AsyncIterator[Broker]:
    broker = broker_of(request.param, request, tmp_path)
    yield broker
    await broker.destroy({service})


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.open()
    yield bus
    await bus.close()


@pytest.fixture
async def asked(bus: Bus, service: str) -> Subscription:
    """Return a subscription to `clip_requested` that is declared."""
    subscription = subscribe(service, "asked", "clip_requested")
    await bus.declare([subscription])
    return subscription

"""What tests of a bus send and receive, and how long they wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus

SOON_S = 20.0  # for what comes at once, or after a reconnect of a second: only what is broken needs all of it
NOTHING_S = 0.3  # how long to look for what must not come
LOOK_AGAIN_S = 0.02


def command(message_id: str = "1", body: bytes = b"{}", name: str = "clip_requested") -> Message:
    return Message(message_id, name, body, "application/cloudevents+json", mandatory=True)


async def receive(bus: Bus, subscription: Subscription, count: int) -> list[Delivery]:
    """Receive exactly `count` deliveries, in as many calls as it takes."""
    deliveries: list[Delivery] = []
    while len(deliveries) < count:
        found = await bus.receive(subscription, at_most=count - len(deliveries), wait_s=SOON_S)
        assert found, f"{len(deliveries)} of {count} came"
        deliveries += found
    return deliveries


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that only a reading tells, such as health: no event says that it has changed."""
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - as the docstring says
            await asyncio.sleep(LOOK_AGAIN_S)

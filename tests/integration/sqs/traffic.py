"""What the tests of SNS with SQS send and receive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.sqs import SqsBus
from shared.bus.sqs_receiver import Times
from shared.settings.aws_address import AwsAddress

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

SOON_S = 20.0  # for what comes at once: only what is broken needs all of it
NOTHING_S = 0.3
QUICK = Times(visibility_s=60, poll_s=1)


def queue_name(aws_url: str, name: str = "clipper-clip_requested") -> str:
    return f"{AwsAddress.parse(aws_url).prefix}-{name}"


async def queue_url(sqs: SQSClient, name: str) -> str:
    return (await sqs.get_queue_url(QueueName=name))["QueueUrl"]


def command(message_id: str = "1", body: bytes = b"{}") -> Message:
    return Message(message_id, "clip_requested", body, "application/json", mandatory=True)


async def receive(bus: SqsBus, subscription: Subscription, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    while len(found) < count:
        more = await bus.receive(subscription, at_most=count - len(found), wait_s=SOON_S)
        assert more, f"{len(found)} of {count} came"
        found += more
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - health is a reading: no event tells that it has changed
            await asyncio.sleep(0.02)

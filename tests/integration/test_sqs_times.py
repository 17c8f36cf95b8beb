"""What depends on time in SQS, on ElasticMQ, which is exact about it: hidden, visible, stale, given up.

There is no SNS here: messages are sent to the queue, and one receiver is looked at alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from aiobotocore.session import get_session

from shared.bus.message import DEAD_LETTERS, FIRST_QUEUE, Delivery, Subscription
from shared.bus.sqs_link import Link
from shared.bus.sqs_names import Names
from shared.bus.sqs_receiver import Receiver, Times
from shared.settings.aws_address import AwsAddress
from tests.traffic import SOON_S

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

SHORT = Times(visibility_s=2, poll_s=1)


@dataclass
class Place:
    """A queue, its dead letters, and who looks at them from outside."""

    sqs: SQSClient
    link: Link
    names: Names
    asked: Subscription
    url: str
    dead_url: str

    def receiver(self, times: Times = SHORT) -> Receiver:
        return Receiver(self.asked, self.url, link=self.link, names=self.names, times=times)

    async def send(self, *bodies: str) -> None:
        for body in bodies:
            await self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    async def count(self) -> tuple[int, int]:
        """Return how many wait, and how many are hidden."""
        answer = await self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        found = answer["Attributes"]
        return (
            int(found["ApproximateNumberOfMessages"]),
            int(found["ApproximateNumberOfMessagesNotVisible"]),
        )


@pytest.fixture
async def place(sqs_endpoint: str) -> AsyncIterator[Place]:
    address = AwsAddress(region="us-east-1", sqs_endpoint=sqs_endpoint, prefix=f"test-{uuid4().hex[:12]}")
    names = Names(address)
    asked = Subscription("clipper", "clip_requested", ("clip_requested",), hands=4)
    async with get_session().create_client("sqs", region_name="us-east-1", endpoint_url=sqs_endpoint) as sqs:
        dead = await sqs.create_queue(QueueName=names.dead_letters("clipper"))
        arn = (await sqs.get_queue_attributes(QueueUrl=dead["QueueUrl"], AttributeNames=["QueueArn"]))[
            "Attributes"
        ]["QueueArn"]
        redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": 3}
        queue = await sqs.create_queue(
            QueueName=names.queue(asked), Attributes={"RedrivePolicy": json.dumps(redrive)}
        )
        link = await Link.open(address, region=None)
        yield Place(sqs, link, names, asked, queue["QueueUrl"], dead["QueueUrl"])
        await link.close()


async def receive_one(receiver: Receiver) -> Delivery:
    (delivery,) = await receiver.receive(at_most=1, wait_s=SOON_S)
    return delivery


async def tend(receiver: Receiver, seconds: float) -> None:
    """Do for a while what the bus does with its receivers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await receiver.tend()
        await asyncio.sleep(SHORT.tick_s)


async def test_what_is_held_stays_hidden_past_the_visibility_timeout(place: Place) -> None:
    holder, other = place.receiver(), place.receiver()
    await place.send("long work")
    held = await receive_one(holder)
    await tend(holder, SHORT.visibility_s * 2)

    assert await other.receive(at_most=1, wait_s=0.2) == []

    await holder.acknowledge([held.receipt])

    assert await place.count() == (0, 0)

    await holder.close()
    await other.close()


async def test_what_a_dead_process_held_comes_again_after_the_visibility_timeout(place: Place) -> None:
    dead, other = place.receiver(), place.receiver()  # nobody tends the first one
    await place.send("a")
    await receive_one(dead)
    started = time.monotonic()
    again = await receive_one(other)

    assert again.redelivered
    assert time.monotonic() - started > SHORT.visibility_s / 2

    await other.acknowledge([again.receipt])
    await other.close()


async def test_nothing_is_kept_hidden_after_it_was_let_go(place: Place) -> None:
    receiver, other = place.receiver(), place.receiver()
    await place.send("a", "b", "c")
    found: list[Delivery] = []
    while len(found) < 3:
        found += await receiver.receive(at_most=3 - len(found), wait_s=SOON_S)
    await receiver.acknowledge([found[0].receipt])
    await receiver.give_back([found[1].receipt])
    again = await receive_one(other)
    await other.acknowledge([again.receipt])
    await tend(receiver, SHORT.visibility_s * 1.5)

    assert again.body == found[1].body
    assert again.redelivered
    assert await place.count() == (0, 1)  # only the third one, which is still held

    await receiver.close()

    assert await place.count() == (1, 0)
    await other.close()


async def test_a_receipt_that_sqs_does_not_know_any_more_is_skipped(place: Place) -> None:
    late, other = place.receiver(Times(visibility_s=30, poll_s=1)), place.receiver()
    await place.send("a")
    lost = await receive_one(late)
    await place.sqs.change_message_visibility(  # a stranger gives it back behind our back
        QueueUrl=place.url, ReceiptHandle=lost.receipt.handle, VisibilityTimeout=0
    )
    held = await receive_one(other)
    await late.acknowledge([lost.receipt])

    assert await place.count() == (0, 1)

    await other.acknowledge([held.receipt])
    await late.close()
    await other.close()


async def test_a_heartbeat_finds_what_is_lost_and_frees_its_hand(place: Place) -> None:
    late = place.receiver(Times(visibility_s=30, poll_s=1))
    await place.send("a")
    lost = await receive_one(late)
    await place.sqs.delete_message(QueueUrl=place.url, ReceiptHandle=lost.receipt.handle)
    late._held[lost.receipt.handle] -= 29  # as if most of the time had passed
    await late.tend()

    assert late.held == 0

    await late.close()


async def test_what_may_be_visible_again_is_not_settled_under_somebody_elses_hands(place: Place) -> None:
    late, other = place.receiver(), place.receiver()  # nobody tends the first one
    await place.send("a")
    lost = await receive_one(late)
    held = await receive_one(other)  # the visibility timeout of the first has passed
    await late.acknowledge([lost.receipt])
    await late.give_back([lost.receipt])

    assert await place.count() == (0, 1)

    await other.acknowledge([held.receipt])
    await place.send("b")

    assert (await receive_one(late)).body == b"b"

    await late.close()
    await other.close()


async def test_the_dead_letter_of_sqs_says_where_it_died(place: Place) -> None:
    receiver = place.receiver()
    await place.send("poison")
    for _ in range(3):
        await receiver.give_back([(await receive_one(receiver)).receipt])
    await receiver.receive(at_most=1, wait_s=0.2)  # the fourth receive moves it
    dead = Subscription("clipper", DEAD_LETTERS, ())
    undertaker = Receiver(dead, place.dead_url, link=place.link, names=place.names, times=SHORT)
    letter = await receive_one(undertaker)

    assert letter.body == b"poison"
    assert letter.headers[FIRST_QUEUE] == "clipper.clip_requested"

    await undertaker.close()
    await receiver.close()


async def test_a_long_poll_is_woken_by_what_comes_and_ends_by_itself(place: Place) -> None:
    receiver = place.receiver(Times(visibility_s=30, poll_s=3))
    waiting = asyncio.create_task(receive_one(receiver))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    await place.send("a")
    await waiting
    woken_after_s = time.monotonic() - started
    await receiver.acknowledge([waiting.result().receipt])
    idle = asyncio.create_task(receiver.receive(at_most=1, wait_s=SOON_S))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    await receiver.close()  # the poll under way is waited for, not cut off

    assert woken_after_s < 2.5
    assert time.monotonic() - started > 1.0
    assert await idle == []


async def test_a_cancelled_receive_swallows_nothing(place: Place) -> None:
    receiver = place.receiver(Times(visibility_s=60, poll_s=2))
    waiting = asyncio.create_task(receive_one(receiver))
    await asyncio.sleep(0.2)
    waiting.cancel()
    await asyncio.wait([waiting])
    await place.send("a")
    async with asyncio.timeout(15):
        delivery = await receive_one(receiver)

    assert delivery.body == b"a"
    assert not delivery.redelivered

    await receiver.close()

    assert await place.count() == (1, 0)

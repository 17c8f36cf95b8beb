"""Messages that others send, over real servers. Nothing of Spool is on the sending side."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aiobotocore.session import get_session

from shared.bus.message import Delivery, Subscription
from shared.bus.rabbitmq import RabbitBus
from shared.bus.sqs import SqsBus
from shared.events.clip import ClipRequested
from shared.events.plain import PublicPlace, plain_body
from shared.events.reading import Letter, Reading, read_letter
from shared.events.registry import Received
from shared.events.s3_notification import Bucket
from shared.events.source import SourceAvailable, SourceRemoved
from shared.settings.aws_address import AwsAddress
from spool.event_examples import EXAMPLES, example_event

REQUEST = {"clipId": "clip-1", "cameraId": "cam-1", "startTimestampInMs": 1, "endTimestampInMs": 2}
RECORDED = "cam-1.stream.20261122T175000123.mp4"
WAIT_S = 10
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass(frozen=True, slots=True)
class Cloud:
    """SNS, SQS and S3 as a team has them, and a queue of Spool's among them."""

    sns: Any
    sqs: Any
    s3: Any
    bus: SqsBus
    subscription: Subscription
    queue_url: str
    queue_arn: str

    async def topic(self, *, raw: bool) -> str:
        """Make a topic of somebody else's that leads to the queue."""
        arn: str = (await self.sns.create_topic(Name=f"theirs-{uuid4().hex}"))["TopicArn"]
        await self.sns.subscribe(
            TopicArn=arn,
            Protocol="sqs",
            Endpoint=self.queue_arn,
            Attributes={"RawMessageDelivery": "true" if raw else "false"},
        )
        return arn

    async def receive(self) -> Delivery:
        (delivery,) = await self.bus.receive(self.subscription, at_most=1, wait_s=WAIT_S)
        await self.bus.acknowledge([delivery])
        return delivery


def read(delivery: Delivery, expected: str, bucket: Bucket | None = None) -> tuple[Reading, ...]:
    letter = Letter(delivery.body, delivery.message_id or "none", delivery.headers, delivery.content_type)
    return read_letter(letter, expected=expected, bucket=bucket)


def only(readings: tuple[Reading, ...]) -> Received:
    (reading,) = readings
    assert isinstance(reading.found, Received), reading.found
    return reading.found


@pytest.fixture
async def cloud(aws_url: str) -> AsyncIterator[Cloud]:
    address = AwsAddress.parse(aws_url)
    subscription = Subscription(service="clipper", name="asked", types=("clip_requested",))
    async with AsyncExitStack() as stack:
        session = get_session()
        sns, sqs, s3 = [
            await stack.enter_async_context(
                session.create_client(name, region_name="us-east-1", endpoint_url=address.sns_endpoint)
            )
            for name in ("sns", "sqs", "s3")
        ]
        bus = await SqsBus.open(aws_url)
        stack.push_async_callback(bus.close)
        await bus.declare([subscription])
        url = (await sqs.get_queue_url(QueueName=f"{address.prefix}-clipper-asked"))["QueueUrl"]
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        yield Cloud(sns, sqs, s3, bus, subscription, url, answer["Attributes"]["QueueArn"])


@pytest.mark.parametrize("body", [json.dumps(REQUEST), str(REQUEST)], ids=["json", "single quotes"])
async def test_the_bare_message_of_the_camera_service_on_sqs(cloud: Cloud, body: str) -> None:
    sent = await cloud.sqs.send_message(QueueUrl=cloud.queue_url, MessageBody=body)

    received = only(read(await cloud.receive(), "clip_requested"))

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert (received.event.source, received.event.id) == ("bare", sent["MessageId"])


async def test_the_bare_message_within_an_envelope_of_sns(cloud: Cloud) -> None:
    topic = await cloud.topic(raw=False)
    attributes = {"traceparent": {"DataType": "String", "StringValue": TRACEPARENT}}
    sent = await cloud.sns.publish(TopicArn=topic, Message=str(REQUEST), MessageAttributes=attributes)

    received = only(read(await cloud.receive(), "clip_requested"))

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert (received.event.source, received.event.id) == ("bare", sent["MessageId"])
    assert received.event.traceparent == TRACEPARENT


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "in an envelope"])
async def test_a_binary_cloud_event_of_sns(cloud: Cloud, raw: bool) -> None:
    topic = await cloud.topic(raw=raw)
    named = {"specversion": "1.0", "id": "event-1", "source": "/theirs", "type": "clip_requested"}
    await cloud.sns.publish(
        TopicArn=topic,
        Message=json.dumps(REQUEST),
        MessageAttributes={
            f"ce-{name}": {"DataType": "String", "StringValue": value} for name, value in named.items()
        },
    )

    received = only(read(await cloud.receive(), "clip_requested"))

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert (received.event.source, received.event.id) == ("/theirs", "event-1")


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "in an envelope"])
async def test_a_subscriber_cannot_tell_a_plain_result_from_one_below_default(
    cloud: Cloud, raw: bool
) -> None:
    available = next(example for example in EXAMPLES if example.type == "clip_available")
    place = PublicPlace(bucket="clips", prefix="", url="https://clips.example.org")
    plain = plain_body(Received(example_event(available), available), place).decode()
    topic = await cloud.topic(raw=raw)

    def parsed(delivery: Delivery) -> object:
        body = json.loads(delivery.body)
        return body if raw else json.loads(body["Message"])

    await cloud.sns.publish(TopicArn=topic, Message=json.dumps({"default": plain}), MessageStructure="json")
    as_today = parsed(await cloud.receive())
    await cloud.sns.publish(TopicArn=topic, Message=plain)
    as_spool_sends_it = parsed(await cloud.receive())

    assert as_today == as_spool_sends_it == json.loads(plain)


async def notify(cloud: Cloud, bucket: str) -> None:
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    await cloud.s3.create_bucket(Bucket=bucket)
    await cloud.s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": cloud.queue_arn, "Events": events}]},
    )


async def test_the_notifications_of_s3(cloud: Cloud) -> None:
    bucket, key = f"theirs-{uuid4().hex}", f"the hall/{RECORDED}"
    await notify(cloud, bucket)
    home = Bucket(bucket)

    async def told(expected: str) -> Received:
        """Return the next event, passing over the test that S3 sends first."""
        while True:
            if readings := read(await cloud.receive(), expected, home):
                return only(readings)

    await cloud.s3.put_object(Bucket=bucket, Key=key, Body=b"video")
    stored = await told("source_available")
    await cloud.s3.delete_object(Bucket=bucket, Key=key)
    removed = await told("source_removed")

    assert stored.data == SourceAvailable(
        camera_id="cam-1", key=key, start_timestamp_in_ms=1_795_369_800_123, size_bytes=5
    )
    assert removed.data == SourceRemoved(camera_id="cam-1", key=key)
    assert stored.event.id != removed.event.id


@pytest.fixture
async def rabbit(amqp_url: str) -> AsyncIterator[tuple[RabbitBus, Callable[..., Any]]]:
    """Open a bus with a queue, and return it with what publishes to it as others do."""
    exchange = f"spool-test-{uuid4().hex}"
    service = f"s{uuid4().hex[:8]}"
    subscription = Subscription(service=service, name="asked", types=("clip_requested",))
    bus = await RabbitBus.open(amqp_url, exchange=exchange)
    await bus.declare([subscription])
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()

        async def send(message: aio_pika.Message) -> Delivery:
            theirs = await channel.get_exchange(exchange)
            await theirs.publish(message, routing_key="clip_requested")
            (delivery,) = await bus.receive(subscription, at_most=1, wait_s=WAIT_S)
            await bus.acknowledge([delivery])
            return delivery

        yield bus, send
        await bus.close()
        for name in ("asked", "dead"):
            await channel.queue_delete(f"{service}.{name}")
        for name in (exchange, f"{exchange}.dead"):
            await channel.exchange_delete(name)


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
async def test_a_binary_cloud_event_of_amqp(
    rabbit: tuple[RabbitBus, Callable[..., Any]], prefix: str
) -> None:
    happened = datetime(2026, 11, 22, 18, 0, 23, tzinfo=UTC)
    named = {"specversion": "1.0", "id": "event-1", "source": "/theirs", "type": "clip_requested"}
    headers: dict[str, Any] = {f"{prefix}{name}": value for name, value in named.items()}
    message = aio_pika.Message(
        json.dumps(REQUEST).encode(),
        headers={**headers, f"{prefix}time": happened},  # AMQP has a type of its own for times
        content_type="application/json",
    )

    received = only(read(await rabbit[1](message), "clip_requested"))

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert (received.event.source, received.event.id) == ("/theirs", "event-1")
    assert (received.event.time, received.event.datacontenttype) == (happened, "application/json")


async def test_a_bare_message_of_amqp(rabbit: tuple[RabbitBus, Callable[..., Any]]) -> None:
    message = aio_pika.Message(str(REQUEST).encode(), message_id="theirs-1")

    received = only(read(await rabbit[1](message), "clip_requested"))

    assert (received.event.source, received.event.id) == ("bare", "theirs-1")
    assert received.data == ClipRequested.model_validate(REQUEST)

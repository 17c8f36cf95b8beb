"""What SQS alone can do to a receiver: hide messages, forget receipts, carry what strangers sent, give up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from shared.bus.message import DEAD_LETTERS, Message, Subscription
from shared.bus.sqs import SqsBus
from shared.bus.sqs_message import Receipt
from shared.bus.sqs_receiver import Times
from shared.database.engine import Database
from shared.events.clip import ClipRequested
from shared.events.envelope import wrap
from shared.inbox.dead_letters import list_dead
from shared.inbox.undertaker import Undertaker
from shared.settings.aws_address import AwsAddress

if TYPE_CHECKING:
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient
from tests.integration.sqs.traffic import QUICK, queue_name, queue_url
from tests.traffic import SOON_S, command, receive, until


async def test_what_a_cancelled_poll_finds_goes_to_the_next_receiver_at_once(
    bus: SqsBus, asked: Subscription
) -> None:
    waiting = asyncio.create_task(bus.receive(asked, at_most=1, wait_s=SOON_S))
    await asyncio.sleep(0.1)  # until the poll is at the server
    waiting.cancel()
    await asyncio.wait([waiting])
    await bus.publish([command("a")])
    async with asyncio.timeout(QUICK.visibility_s / 4):  # SQS itself would bring it after all of it
        (delivery,) = await receive(bus, asked, 1)

    assert (delivery.message_id, delivery.redelivered) == ("a", False)


async def test_what_a_poll_finds_after_the_drain_began_is_given_back_at_once(
    bus: SqsBus, aws_url: str, asked: Subscription
) -> None:
    draining = await SqsBus.open(aws_url, times=Times(visibility_s=60, poll_s=10))
    await draining.declare([asked])
    waiting = asyncio.create_task(draining.receive(asked, at_most=1, wait_s=SOON_S))
    await asyncio.sleep(0.3)  # until the poll is at the server
    await draining.stop_receiving()
    await bus.publish([command("a")])
    receiver = draining._receivers[asked.queue]
    await until(lambda: receiver._poll is None)  # nobody else has asked: so this poll has found it
    async with asyncio.timeout(QUICK.visibility_s / 4):
        (delivery,) = await receive(bus, asked, 1)

    assert await waiting == []
    assert (delivery.message_id, delivery.redelivered) == ("a", True)

    await draining.close()


async def test_what_nobody_asks_for_any_more_goes_to_others(aws_url: str, asked: Subscription) -> None:
    idle = await SqsBus.open(aws_url, times=Times(poll_s=1, idle_s=0.2))
    await idle.declare([asked])
    await idle.publish([command("a")])
    receiving = asyncio.create_task(idle.receive(asked, at_most=1, wait_s=SOON_S))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    receiving.cancel()  # its poll is on the way, and finds the message for nobody
    await asyncio.wait([receiving])
    other = await SqsBus.open(aws_url, times=QUICK)
    await other.declare([asked])
    (delivery,) = await receive(other, asked, 1)

    assert delivery.message_id == "a"

    await idle.close()
    await other.close()


async def test_acknowledging_more_than_ten_goes_in_batches(
    bus: SqsBus, sqs: SQSClient, aws_url: str, asked: Subscription
) -> None:
    await bus.publish([command(f"{number}") for number in range(16)])
    held = await receive(bus, asked, 16)
    await bus.give_back(held[:12])
    again = await receive(bus, asked, 12)
    await bus.acknowledge([*held[12:], *again])
    answer = await sqs.get_queue_attributes(
        QueueUrl=await queue_url(sqs, queue_name(aws_url)), AttributeNames=["All"]
    )

    assert all(delivery.redelivered for delivery in again)
    assert answer["Attributes"]["ApproximateNumberOfMessages"] == "0"
    assert answer["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"


async def test_a_message_of_a_stranger_arrives_as_it_is(
    bus: SqsBus, sqs: SQSClient, aws_url: str, asked: Subscription
) -> None:
    sent = await sqs.send_message(
        QueueUrl=await queue_url(sqs, queue_name(aws_url)),
        MessageBody="{'cameraId': 'cam-1'}",
        MessageAttributes={
            "ce-id": {"DataType": "String", "StringValue": "event-1"},
            "Content-Type": {"DataType": "String", "StringValue": "text/plain"},
            "count": {"DataType": "Number", "StringValue": "3"},
            "raw": {"DataType": "Binary", "BinaryValue": b"abc"},
            "spool": {"DataType": "String", "StringValue": "no JSON"},
            "type": {"DataType": "String", "StringValue": "theirs"},
        },
    )
    (delivery,) = await receive(bus, asked, 1)

    assert delivery.message_id == sent["MessageId"]
    assert delivery.body == b"{'cameraId': 'cam-1'}"
    assert delivery.content_type == "text/plain"
    assert delivery.headers == {
        "ce-id": "event-1",
        "Content-Type": "text/plain",
        "count": "3",
        "raw": "abc",
        "spool": "no JSON",
        "type": "theirs",
    }


async def test_a_subscriber_of_somebody_else_reads_type_and_trace_as_attributes(
    bus: SqsBus, sqs: SQSClient, sns: SNSClient, aws_url: str
) -> None:
    """Somebody who knows nothing of Spool has a queue on the topic."""
    theirs = await sqs.create_queue(QueueName=f"theirs-{uuid4().hex}")
    arn = (await sqs.get_queue_attributes(QueueUrl=theirs["QueueUrl"], AttributeNames=["QueueArn"]))[
        "Attributes"
    ]["QueueArn"]
    topic = await sns.create_topic(Name=AwsAddress.parse(aws_url).prefix)
    await sns.subscribe(
        TopicArn=topic["TopicArn"],
        Protocol="sqs",
        Endpoint=arn,
        Attributes={
            "RawMessageDelivery": "true",
            "FilterPolicy": json.dumps({"type": [{"prefix": "clip_a"}]}),
        },
    )
    headers = {"traceparent": "00-1-2-03", **{f"h{number}": f"{number}" for number in range(20)}}
    told = Message("1", "clip_available", b'{"a":1}', "application/json", mandatory=True, headers=headers)
    await bus.publish([told, Message("2", "clip_failed", b"{}", "application/json", mandatory=False)])
    answer = await sqs.receive_message(
        QueueUrl=theirs["QueueUrl"], MessageAttributeNames=["All"], MaxNumberOfMessages=10, WaitTimeSeconds=2
    )
    [message] = answer["Messages"]
    attributes = {name: each["StringValue"] for name, each in message["MessageAttributes"].items()}

    assert message["Body"] == '{"a":1}'
    assert len(attributes) == 10
    assert (attributes["type"], attributes["traceparent"]) == ("clip_available", "00-1-2-03")
    assert json.loads(attributes["spool"])["headers"].keys() < headers.keys()


async def test_what_sqs_gives_up_becomes_a_dead_letter_of_the_inbox(
    bus: SqsBus, sqs: SQSClient, aws_url: str, asked: Subscription, database: Database
) -> None:
    dead = Subscription("clipper", DEAD_LETTERS, ())
    await bus.declare([dead])
    url = await queue_url(sqs, queue_name(aws_url))
    attributes = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"]))[
        "Attributes"
    ]
    redrive = json.loads(attributes["RedrivePolicy"]) | {"maxReceiveCount": 2}
    await sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(redrive)})
    request = ClipRequested(clip_id="c-1", camera_id="cam", start_timestamp_in_ms=0, end_timestamp_in_ms=1000)
    body = wrap(request, id="event-1", source="a stranger", time_ms=0).to_bytes()
    await bus.publish([command("m-1", body)])
    for _ in range(2):
        await bus.give_back(await receive(bus, asked, 1))
    burying = asyncio.create_task(Undertaker(dead, bus=bus, database=database).run())
    await bus.receive(asked, at_most=1, wait_s=1.0)  # only a third receive moves it
    letters: Sequence[Any] = []
    async with asyncio.timeout(SOON_S):
        while not letters:
            await asyncio.sleep(0.05)
            async with database.read() as connection:
                letters = await list_dead(database, connection)
    burying.cancel()
    await asyncio.wait([burying])

    [letter] = letters
    assert (letter.consumer, letter.event_id) == ("clipper.clip_requested", "event-1")


async def test_deliveries_of_another_bus_are_stale(bus: SqsBus, asked: Subscription) -> None:
    await bus.publish([command("a")])
    (held,) = await receive(bus, asked, 1)
    forged = replace(held, receipt=Receipt("somebody else's"))
    await bus.acknowledge([forged])
    await bus.give_back([forged])
    await bus.give_back([held])

    assert (await receive(bus, asked, 1))[0].message_id == "a"

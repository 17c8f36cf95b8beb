"""What SQS and SNS alone can do to a bus: hide messages, forget receipts, fail in part, lose queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from aiobotocore.session import get_session

from shared.bus.message import DEAD_LETTERS, Delivery, Message, Subscription
from shared.bus.port import Unroutable
from shared.bus.sqs import SqsBus
from shared.bus.sqs_message import Receipt
from shared.bus.sqs_receiver import Times
from shared.bus.sqs_topology import MAX_RECEIVE_COUNT
from shared.database.engine import Database
from shared.events.clip import ClipRequested
from shared.events.envelope import wrap
from shared.inbox.dead_letters import list_dead
from shared.inbox.undertaker import Undertaker
from shared.kernel.errors import Conflict, NotFound, Refused, Unavailable
from shared.settings.aws_address import AwsAddress
from tests.integration.aws_impostor import AwsImpostor, aws_impostor

if TYPE_CHECKING:
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient

SOON_S = 20.0  # for what comes at once: only what is broken needs all of it
NOTHING_S = 0.3
QUICK = Times(visibility_s=60, poll_s=1)


@pytest.fixture
def asked() -> Subscription:
    return Subscription("clipper", "clip_requested", ("clip_requested",), hands=16)


@pytest.fixture
async def bus(aws_url: str, asked: Subscription) -> AsyncIterator[SqsBus]:
    """Return a bus on MiniStack, with the subscription declared."""
    bus = await SqsBus.open(aws_url, times=QUICK)
    await bus.declare([asked])
    yield bus
    await bus.close()


@pytest.fixture
async def sqs(aws_url: str) -> AsyncIterator[SQSClient]:
    """Return a stranger's client, by which tests look and interfere from outside."""
    endpoint = AwsAddress.parse(aws_url).sqs_endpoint
    async with get_session().create_client("sqs", region_name="us-east-1", endpoint_url=endpoint) as client:
        yield client


@pytest.fixture
async def sns(aws_url: str) -> AsyncIterator[SNSClient]:
    endpoint = AwsAddress.parse(aws_url).sns_endpoint
    async with get_session().create_client("sns", region_name="us-east-1", endpoint_url=endpoint) as client:
        yield client


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


async def test_a_queue_that_was_deleted_is_named_and_made_again(
    bus: SqsBus, sqs: SQSClient, aws_url: str, asked: Subscription
) -> None:
    await sqs.delete_queue(QueueUrl=await queue_url(sqs, queue_name(aws_url)))
    with pytest.raises(Unavailable, match=r"receive from clipper\.clip_requested"):
        await bus.receive(asked, at_most=1, wait_s=SOON_S)

    assert "clipper.clip_requested" in bus.health().reason
    assert (bus.health().connected, bus.health().consuming) == (True, False)

    await bus.publish([command("a")])
    (delivery,) = await receive(bus, asked, 1)

    assert delivery.message_id == "a"
    assert bus.health().consuming


async def test_a_queue_that_was_deleted_makes_its_commands_unroutable(
    bus: SqsBus, sqs: SQSClient, aws_url: str, asked: Subscription
) -> None:
    await sqs.delete_queue(QueueUrl=await queue_url(sqs, queue_name(aws_url)))
    publisher = await SqsBus.open(aws_url, times=QUICK)  # one that has not looked anything up yet

    with pytest.raises(Unroutable, match="clip_requested"):
        await publisher.publish([command("a")])

    await publisher.close()


async def test_who_subscribes_after_the_routes_were_looked_up_is_found(
    bus: SqsBus, aws_url: str, asked: Subscription
) -> None:
    publisher = await SqsBus.open(aws_url, times=QUICK)
    await publisher.publish([command("a")])  # looks up who is there
    late = Subscription("recorder", "recording_start_requested", ("recording_start_requested",))
    await bus.declare([late])
    await asyncio.sleep(1.1)  # what was looked up this second is not looked up again
    await publisher.publish([Message("b", late.name, b"{}", "application/json", mandatory=True)])
    (delivery,) = await receive(bus, late, 1)

    assert delivery.message_id == "b"

    await publisher.close()


async def test_with_a_topic_per_family_each_event_passes_its_own(
    aws_url: str, sns: SNSClient, sqs: SQSClient
) -> None:
    both = Subscription("archiver", "all", ("clip_available", "recording_completed"))
    bus = await SqsBus.open(f"{aws_url}&topics=family", times=QUICK)
    await bus.declare([both])
    await bus.publish([Message(name, name, b"{}", "application/json", mandatory=True) for name in both.types])
    arrived = await receive(bus, both, 2)
    topics = [topic["TopicArn"] async for page in _topics(sns) for topic in page["Topics"]]
    mine = {arn.rpartition(":")[2] for arn in topics if AwsAddress.parse(aws_url).prefix in arn}
    policy = await sqs.get_queue_attributes(
        QueueUrl=await queue_url(sqs, queue_name(aws_url, "archiver-all")), AttributeNames=["Policy"]
    )
    [statement] = json.loads(policy["Attributes"]["Policy"])["Statement"]

    assert {delivery.message_id for delivery in arrived} == set(both.types)
    assert mine == {queue_name(aws_url, "clip"), queue_name(aws_url, "recording")}
    assert {arn.rpartition(":")[2] for arn in statement["Condition"]["ArnEquals"]["aws:SourceArn"]} == mine

    await bus.close()


def _topics(sns: SNSClient) -> Any:
    return sns.get_paginator("list_topics").paginate()


async def test_a_declared_queue_lets_its_topic_send_and_gives_up_late(
    bus: SqsBus, sqs: SQSClient, aws_url: str
) -> None:
    answer = await sqs.get_queue_attributes(
        QueueUrl=await queue_url(sqs, queue_name(aws_url)), AttributeNames=["All"]
    )
    redrive = json.loads(answer["Attributes"]["RedrivePolicy"])
    [statement] = json.loads(answer["Attributes"]["Policy"])["Statement"]
    [topic] = statement["Condition"]["ArnEquals"]["aws:SourceArn"]

    assert redrive["deadLetterTargetArn"].endswith(queue_name(aws_url, "clipper-dead"))
    assert int(redrive["maxReceiveCount"]) == MAX_RECEIVE_COUNT >= 100
    assert topic.endswith(f":{AwsAddress.parse(aws_url).prefix}")
    assert (answer["Attributes"]["VisibilityTimeout"], statement["Action"]) == ("60", "sqs:SendMessage")


async def test_declaring_keeps_what_others_added_to_a_queue(
    bus: SqsBus, sqs: SQSClient, aws_url: str, asked: Subscription
) -> None:
    url = await queue_url(sqs, queue_name(aws_url))
    theirs = {"Sid": "theirs", "Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage"}
    await sqs.set_queue_attributes(
        QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": theirs})}
    )
    await bus.declare([asked])
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
    statements = json.loads(answer["Attributes"]["Policy"])["Statement"]

    assert [statement["Sid"] for statement in statements] == ["theirs", "SpoolTopics"]


async def test_two_versions_that_run_at_once_hear_what_either_wants(bus: SqsBus, asked: Subscription) -> None:
    newer = Subscription(asked.service, asked.name, ("call_ended",))
    await bus.declare([newer])
    await bus.publish([Message("a", "call_ended", b"{}", "application/json", mandatory=True), command("b")])
    arrived = await receive(bus, asked, 2)

    assert {delivery.message_id for delivery in arrived} == {"a", "b"}


async def test_a_filter_that_somebody_else_wrote_is_left_alone(
    bus: SqsBus, sns: SNSClient, aws_url: str, asked: Subscription
) -> None:
    topic = await sns.create_topic(Name=AwsAddress.parse(aws_url).prefix)
    listed = await sns.list_subscriptions_by_topic(TopicArn=topic["TopicArn"])
    await sns.set_subscription_attributes(
        SubscriptionArn=listed["Subscriptions"][0]["SubscriptionArn"],
        AttributeName="FilterPolicy",
        AttributeValue=json.dumps({"type": [{"prefix": "clip_"}]}),
    )
    await bus.declare([asked])
    with pytest.raises(Conflict, match="filter"):
        await bus.declare([Subscription(asked.service, asked.name, ("call_ended",))])


@pytest.mark.parametrize("missing", ["all", "the queue", "the subscription", "the type"])
@pytest.mark.usefixtures("bus")
async def test_where_nothing_may_be_made_what_is_missing_is_named_with_the_command(
    sqs: SQSClient, sns: SNSClient, aws_url: str, asked: Subscription, missing: str
) -> None:
    wanted = asked
    match missing:
        case "all":
            wanted = Subscription("merger", "call_ended", ("call_ended",))
        case "the queue":
            await sqs.delete_queue(QueueUrl=await queue_url(sqs, queue_name(aws_url)))
        case "the subscription":
            topic = await sns.create_topic(Name=AwsAddress.parse(aws_url).prefix)
            listed = await sns.list_subscriptions_by_topic(TopicArn=topic["TopicArn"])
            await sns.unsubscribe(SubscriptionArn=listed["Subscriptions"][0]["SubscriptionArn"])
        case _:
            wanted = Subscription(asked.service, asked.name, ("call_ended",))
    given = await SqsBus.open(f"{aws_url}&create=no", times=QUICK)
    with pytest.raises(NotFound, match="spool bus declare") as caught:
        await given.declare([wanted])

    assert AwsAddress.parse(aws_url).prefix in str(caught.value)

    await given.close()


async def test_what_was_given_is_used_without_making_anything(
    bus: SqsBus, aws_url: str, asked: Subscription
) -> None:
    given = await SqsBus.open(f"{aws_url}&create=no", times=QUICK)
    await given.declare([asked])
    await given.publish([command("a")])
    (delivery,) = await receive(given, asked, 1)
    with pytest.raises(Unroutable):
        await given.publish([Message("b", "merge_requested", b"{}", "text/plain", mandatory=True)])

    assert delivery.message_id == "a"

    await given.close()


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


async def test_without_credentials_the_bus_says_which_to_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        await SqsBus.open("aws:?endpoint=http://127.0.0.1:9&region=us-east-1")


async def test_without_a_region_the_bus_says_how_to_give_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(Refused, match="AWS_REGION"):
        await SqsBus.open("aws:")


async def test_an_address_that_nobody_answers_is_unavailable_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testtest")
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Unavailable, match="AWS does not answer"):
            await SqsBus.open("aws:?endpoint=http://127.0.0.1:9&region=us-east-1")


@pytest.fixture
async def impostor(aws_url: str) -> AsyncIterator[AwsImpostor]:
    """Return a way to MiniStack that answers some calls by itself."""
    async with aws_impostor(AwsAddress.parse(aws_url).sqs_endpoint or "") as impostor:
        yield impostor


@pytest.fixture
async def fooled(impostor: AwsImpostor, aws_url: str, asked: Subscription) -> AsyncIterator[SqsBus]:
    endpoint = AwsAddress.parse(aws_url).sqs_endpoint or ""
    bus = await SqsBus.open(aws_url.replace(endpoint, impostor.url), times=QUICK)
    await bus.declare([asked])
    yield bus
    impostor.behave()
    await bus.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(400, "Throttling", id="throttled"),
        pytest.param(503, "ServiceUnavailable", id="503"),
        pytest.param(500, "InternalError", id="500"),
        pytest.param(403, "ExpiredToken", id="token-expired"),
    ],
)
async def test_a_publish_that_aws_does_not_take_is_unavailable_and_health_says_so(
    fooled: SqsBus, impostor: AwsImpostor, status: int, code: str
) -> None:
    impostor.answer("PublishBatch", status, code)
    impostor.answer("ListTopics", status, code)
    with pytest.raises(Unavailable, match=code):
        await fooled.publish([command("a")])

    assert not fooled.health().connected
    assert code in fooled.health().reason

    impostor.behave()
    await until(lambda: fooled.health().connected)
    await fooled.publish([command("b")])


async def test_what_is_throttled_for_a_moment_is_repeated(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    impostor.answer("PublishBatch", 400, "Throttling", times=1)
    impostor.answer("ReceiveMessage", 503, "ServiceUnavailable", times=1)
    impostor.answer("DeleteMessageBatch", 500, "InternalError", times=1)
    await fooled.publish([command("a")])
    held = await receive(fooled, asked, 1)
    await fooled.acknowledge(held)

    assert held[0].message_id == "a"
    assert impostor.counted["PublishBatch"] >= 2


async def test_a_permission_that_is_missing_is_told_and_is_no_outage(
    fooled: SqsBus, impostor: AwsImpostor
) -> None:
    impostor.answer("PublishBatch", 403, "AuthorizationError")
    with pytest.raises(Unavailable, match="permissions"):
        await fooled.publish([command("a")])

    assert fooled.health().connected


async def test_only_what_failed_of_a_batch_is_published_again(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    impostor.drop_from_batches("3", "7")
    await fooled.publish([command(f"{number}") for number in range(10)])
    arrived = await receive(fooled, asked, 10)

    assert sorted(str(each.message_id) for each in arrived) == [f"{number}" for number in range(10)]
    assert impostor.counted["PublishBatch"] == 2
    assert await fooled.receive(asked, at_most=1, wait_s=NOTHING_S) == []


async def test_a_batch_that_is_too_large_for_one_call_goes_in_several(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    await fooled.publish([command(f"{number}", b"x" * 100_000) for number in range(7)])
    arrived = await receive(fooled, asked, 7)

    assert sorted(str(delivery.message_id) for delivery in arrived) == [f"{number}" for number in range(7)]
    assert impostor.counted["PublishBatch"] == 4  # two of them fit into 256 KiB


async def test_what_sns_refuses_for_good_is_not_tried_again(fooled: SqsBus, impostor: AwsImpostor) -> None:
    impostor.drop_from_batches("0", sender_fault=True)
    with pytest.raises(Refused, match="publish"):
        await fooled.publish([command("a"), command("b")])

    assert impostor.counted["PublishBatch"] == 1


async def test_an_acknowledgement_that_fails_lets_the_message_come_again(
    fooled: SqsBus, impostor: AwsImpostor, asked: Subscription
) -> None:
    await fooled.publish([command("a")])
    held = await receive(fooled, asked, 1)
    impostor.answer("DeleteMessageBatch", 503, "ServiceUnavailable")
    with pytest.raises(Unavailable):
        await fooled.acknowledge(held)
    impostor.behave()
    await fooled.acknowledge(held)  # it is no longer held: nothing keeps it hidden, and it is brought again

    assert impostor.counted["DeleteMessageBatch"] == 3


async def test_deliveries_of_another_bus_are_stale(bus: SqsBus, asked: Subscription) -> None:
    await bus.publish([command("a")])
    (held,) = await receive(bus, asked, 1)
    forged = replace(held, receipt=Receipt("somebody else's"))
    await bus.acknowledge([forged])
    await bus.give_back([forged])
    await bus.give_back([held])

    assert (await receive(bus, asked, 1))[0].message_id == "a"

"""Topics, queues and filters: made, shared with others, given, and gone."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from shared.bus.message import Message, Subscription
from shared.bus.port import Unroutable
from shared.bus.sqs import SqsBus
from shared.bus.sqs_topology import MAX_RECEIVE_COUNT
from shared.kernel.errors import Conflict, NotFound, Unavailable
from shared.settings.aws_address import AwsAddress

if TYPE_CHECKING:
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient
from tests.integration.sqs.traffic import QUICK, queue_name, queue_url
from tests.traffic import SOON_S, command, receive


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

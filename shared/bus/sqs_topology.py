"""What Spool makes in SNS and SQS: topics, a queue per subscription with a filter, dead letters.

Everything is found by its name, so what somebody else made under the same names (Terraform, CloudFormation)
is used as it is. A filter only ever grows: two adjacent versions of a service run at once.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.bus.message import DEAD_LETTERS, Subscription
from shared.bus.port import QueueState
from shared.bus.sqs_errors import DECLARE, QueueMissing, code_of
from shared.bus.sqs_filters import Filter
from shared.bus.sqs_link import Link
from shared.bus.sqs_names import Names, queue_arn
from shared.kernel.errors import Conflict, NotFound

if TYPE_CHECKING:
    from types_aiobotocore_sqs.literals import QueueAttributeNameType

# It only guards the few lines before the inbox's insert, as RabbitMQ's; SQS allows up to 1000.
MAX_RECEIVE_COUNT = 200
VISIBILITY_S = 60
RETENTION_S = 14 * 24 * 3600  # the longest that SQS has
STATEMENT = "SpoolTopics"


@dataclass(frozen=True, slots=True)
class SnsSubscription:
    """One subscription of a topic, whoever made it."""

    arn: str
    protocol: str
    endpoint: str
    filter: Filter
    raw: bool


class Topology:
    """Finds, and makes where that is allowed, the topics and queues of one installation."""

    def __init__(self, link: Link, names: Names, *, create: bool) -> None:
        """Without `create` nothing is ever made or changed."""
        self._link = link
        self._names = names
        self._create = create
        self._topics: dict[str, str] = {}  # name -> ARN
        self._turn = asyncio.Lock()

    async def declare(self, subscription: Subscription) -> str:
        """Make what the subscription needs; return its queue's URL.

        Raises NotFound for what is missing and may not be made, Conflict, Unavailable.
        """
        async with self._turn:
            dead = self._names.dead_letters(subscription.service)
            dead_url = await self._queue(dead, {})
            if subscription.name == DEAD_LETTERS:
                return dead_url
            types = defaultdict(list)
            for name in subscription.types:
                types[self._names.topic(name)].append(name)
            topics = {topic: await self._needed_topic(topic) for topic in types}
            queue = self._names.queue(subscription)
            url = await self._queue(queue, _attributes(queue, dead, tuple(topics.values())))
            for topic, names in types.items():
                await self._subscribe(topics[topic], queue_arn(topics[topic], queue), names)
            return url

    async def inspect(self, subscription: Subscription) -> QueueState:
        """Say what is there for the subscription; make nothing."""
        is_dead = subscription.name == DEAD_LETTERS
        name = self._names.dead_letters(subscription.service) if is_dead else self._names.queue(subscription)
        url = await self.queue_url(name)
        if url is None:
            return QueueState(queue=subscription.queue, called=name, exists=False, unheard=subscription.types)
        async with self._link.asking("SQS", f"look at {name}"):
            answer = await self._link.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        found = answer.get("Attributes", {})
        unheard = [each for each in subscription.types if not await self._hears(name, each)]
        return QueueState(
            queue=subscription.queue,
            called=name,
            exists=True,
            ready=int(found.get("ApproximateNumberOfMessages", 0)),
            taken=int(found.get("ApproximateNumberOfMessagesNotVisible", 0)),
            unheard=tuple(unheard),
        )

    async def _hears(self, queue: str, event_type: str) -> bool:
        if (topic := await self.topic(event_type)) is None:
            return False
        arn = queue_arn(topic, queue)
        return any(
            each.endpoint == arn and each.filter.wants({"type": event_type})
            for each in await self.subscriptions(topic)
        )

    async def topic(self, event_type: str) -> str | None:
        """Return the ARN of the topic that the type is published to; None when there is none."""
        return await self._topic(self._names.topic(event_type))

    def forget_topics(self) -> None:
        """Look for the topics again: one of them is gone."""
        self._topics.clear()

    async def queue_url(self, queue: str) -> str | None:
        """Return the URL of a queue of this account, None when it does not exist."""
        try:
            async with self._link.asking("SQS", f"find the queue {queue}"):
                return (await self._link.sqs.get_queue_url(QueueName=queue))["QueueUrl"]
        except QueueMissing:
            return None

    async def subscriptions(self, topic_arn: str) -> list[SnsSubscription]:
        """Return everything that is subscribed to the topic and confirmed."""
        arns: list[str] = []
        async with self._link.asking("SNS", "list the subscriptions of a topic"):
            pages = self._link.sns.get_paginator("list_subscriptions_by_topic")
            async for page in pages.paginate(TopicArn=topic_arn):
                listed = (found.get("SubscriptionArn", "") for found in page["Subscriptions"])
                # The others are `PendingConfirmation` or `Deleted`.
                arns += [arn for arn in listed if arn.startswith("arn:")]
            return [found for arn in arns if (found := await self._described(arn)) is not None]

    async def _described(self, arn: str) -> SnsSubscription | None:
        try:
            answer = await self._link.sns.get_subscription_attributes(SubscriptionArn=arn)
        except ClientError as error:
            if code_of(error) == "NotFound":  # it was removed since it was listed
                return None
            raise
        found = answer["Attributes"]
        return SnsSubscription(
            arn=arn,
            protocol=found.get("Protocol", "") or arn,
            endpoint=found.get("Endpoint", ""),
            filter=Filter.parse(found.get("FilterPolicy"), found.get("FilterPolicyScope")),
            raw=found.get("RawMessageDelivery") == "true",
        )

    async def _needed_topic(self, name: str) -> str:
        if (arn := await self._topic(name)) is None:
            raise NotFound(f"the topic {name} does not exist in SNS", hint=DECLARE)
        return arn

    async def _topic(self, name: str) -> str | None:
        if name in self._topics:
            return self._topics[name]
        async with self._link.asking("SNS", f"find the topic {name}"):
            if self._create:  # it returns the one that exists
                self._topics[name] = (await self._link.sns.create_topic(Name=name))["TopicArn"]
                return self._topics[name]
            async for page in self._link.sns.get_paginator("list_topics").paginate():
                for found in page["Topics"]:
                    arn = found.get("TopicArn", "")
                    if arn.endswith(f":{name}"):
                        self._topics[name] = arn
                        return arn
        return None

    async def _queue(self, name: str, wanted: Mapping[str, Any]) -> str:
        url = await self.queue_url(name)
        if url is None and not self._create:
            raise NotFound(f"the queue {name} does not exist in SQS", hint=DECLARE)
        if url is None:
            return await self._make_queue(name, wanted)
        if self._create and wanted:
            await self._complete(name, url, wanted)
        return url

    async def _make_queue(self, name: str, wanted: Mapping[str, Any]) -> str:
        attributes: dict[QueueAttributeNameType, str] = {
            "VisibilityTimeout": str(VISIBILITY_S),
            "MessageRetentionPeriod": str(RETENTION_S),
        }
        if wanted:
            attributes["RedrivePolicy"] = json.dumps(wanted["redrive"])
            attributes["Policy"] = _policy([wanted["statement"]])
        async with self._link.asking("SQS", f"make the queue {name}"):
            made = await self._link.sqs.create_queue(QueueName=name, Attributes=attributes)
        return made["QueueUrl"]

    async def _complete(self, name: str, url: str, wanted: Mapping[str, Any]) -> None:
        """Add to a queue that exists what it lacks: others may have more in its policy, or other limits."""
        async with self._link.asking("SQS", f"complete the queue {name}"):
            answer = await self._link.sqs.get_queue_attributes(
                QueueUrl=url, AttributeNames=["Policy", "RedrivePolicy"]
            )
            has = answer.get("Attributes", {})
            lacks: dict[QueueAttributeNameType, str] = {}
            if not has.get("RedrivePolicy"):
                lacks["RedrivePolicy"] = json.dumps(wanted["redrive"])
            if (policy := _with_statement(has.get("Policy"), wanted["statement"])) is not None:
                lacks["Policy"] = policy
            if lacks:
                await self._link.sqs.set_queue_attributes(QueueUrl=url, Attributes=lacks)

    async def _subscribe(self, topic_arn: str, endpoint: str, types: list[str]) -> None:
        name = endpoint.rpartition(":")[2]
        found = [each for each in await self.subscriptions(topic_arn) if each.endpoint == endpoint]
        if not found and not self._create:
            raise NotFound(f"the queue {name} is not subscribed to {topic_arn}", hint=DECLARE)
        if not found:
            async with self._link.asking("SNS", f"subscribe {name}"):
                await self._link.sns.subscribe(
                    TopicArn=topic_arn,
                    Protocol="sqs",
                    Endpoint=endpoint,
                    Attributes={"RawMessageDelivery": "true", "FilterPolicy": Filter.of(types).to_json()},
                )
            return
        await self._widen(found[0], name, types)

    async def _widen(self, found: SnsSubscription, name: str, types: list[str]) -> None:
        """Let a subscription that exists want the types as well."""
        changes: dict[str, str] = {}
        missing = [each for each in types if not found.filter.wants({"type": each})]
        known = found.filter.types
        if missing and known is None:
            hint = f"let its filter policy want {', '.join(missing)}, or delete the subscription"
            raise Conflict(f"the subscription of {name} has a filter that Spool did not write", hint=hint)
        if missing and known is not None:
            changes["FilterPolicy"] = Filter.of(known | set(types)).to_json()
        if not found.raw:
            changes["RawMessageDelivery"] = "true"
        if changes and not self._create:
            lacks = f"does not want {', '.join(missing)}" if missing else "is not delivered raw"
            raise NotFound(f"the subscription of {name} {lacks}", hint=DECLARE)
        async with self._link.asking("SNS", f"change the subscription of {name}"):
            for attribute, value in changes.items():
                await self._link.sns.set_subscription_attributes(
                    SubscriptionArn=found.arn, AttributeName=attribute, AttributeValue=value
                )


def _attributes(queue: str, dead: str, topic_arns: tuple[str, ...]) -> dict[str, Any]:
    arn = queue_arn(topic_arns[0], queue)
    return {
        "redrive": {
            "deadLetterTargetArn": queue_arn(topic_arns[0], dead),
            "maxReceiveCount": MAX_RECEIVE_COUNT,
        },
        "statement": {
            "Sid": STATEMENT,
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            # Exactly these topics: without it any topic of the world could fill the queue.
            "Condition": {"ArnEquals": {"aws:SourceArn": sorted(topic_arns)}},
        },
    }


def _policy(statements: list[Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _with_statement(policy: str | None, statement: Mapping[str, Any]) -> str | None:
    """Return the policy with our statement in place, None when it is there already."""
    statements = json.loads(policy).get("Statement", []) if policy else []
    if isinstance(statements, dict):  # a policy of one statement may be written so
        statements = [statements]
    if statement in statements:
        return None
    others = [each for each in statements if each.get("Sid") != STATEMENT]
    return _policy([*others, statement])

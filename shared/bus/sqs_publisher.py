"""Publish to SNS: in batches of ten that fit, each entry accounted for, what failed for a moment again."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.bus.message import Message
from shared.bus.port import TooLarge, Unroutable
from shared.bus.sqs_errors import TopicMissing
from shared.bus.sqs_link import Link
from shared.bus.sqs_message import Parcel, in_batches, pack
from shared.bus.sqs_routes import Routes
from shared.bus.sqs_topology import Topology
from shared.kernel.errors import Refused, Unavailable

if TYPE_CHECKING:
    from types_aiobotocore_sns.type_defs import PublishBatchRequestEntryTypeDef

CONFIRM_S = 15.0  # for one batch with all its attempts
ATTEMPTS = 6  # for entries that SNS could not take this time
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # between two attempts
BATCHES_AT_ONCE = 8


class Publisher:
    """Publishes to the topics of one installation."""

    def __init__(
        self, link: Link, topology: Topology, routes: Routes, unrouted: Callable[[str], None]
    ) -> None:
        """Tell `unrouted` the type of each fact that nobody wants."""
        self._link = link
        self._topology = topology
        self._routes = routes
        self._unrouted = unrouted
        self._at_once = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when SNS has taken every message.

        Raises Unroutable or TooLarge, before anything was published; Unavailable; Refused for what SNS
        refuses for another reason.
        """
        parcels = [pack(message) for message in messages]
        by_topic = await self._routed(parcels)
        batches = [(topic, batch) for topic, found in by_topic.items() for batch in in_batches(found)]
        # Each one ends, well or badly, before the first failure is raised: none is left behind.
        sending = [self._publish_batch(topic, batch) for topic, batch in batches]
        for outcome in await asyncio.gather(*sending, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _routed(self, parcels: Sequence[Parcel]) -> dict[str, list[Parcel]]:
        """Sort the messages by topic. Facts that nobody wants are counted, and published all the same.

        Somebody may have subscribed since the routes were looked up.
        """
        by_topic: defaultdict[str, list[Parcel]] = defaultdict(list)
        unwanted: list[str] = []
        for parcel in parcels:
            message = parcel.message
            topic = await self._topology.topic(message.type)
            leads = topic is not None and await self._leads(topic, parcel)
            if message.mandatory and not leads:
                raise Unroutable(f"nobody is subscribed to {message.type}")
            if not leads:
                unwanted.append(message.type)
            if topic is not None:
                by_topic[topic].append(parcel)
        for name in unwanted:
            self._unrouted(name)
        return by_topic

    async def _leads(self, topic: str, parcel: Parcel) -> bool:
        with self._noticing():
            return await self._routes.lead(topic, parcel.attributes, surely=parcel.message.mandatory)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Look for the topics and routes again when one of them is gone."""
        try:
            yield
        except TopicMissing:
            self._topology.forget_topics()
            self._routes.forget()
            raise

    async def _publish_batch(self, topic: str, parcels: Sequence[Parcel]) -> None:
        left = list(parcels)
        async with self._at_once:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(_wait_s(attempt))
                left = await self._send(topic, left)
                if not left:
                    return
        raise Unavailable(f"SNS did not take {len(left)} of {len(parcels)} messages")

    async def _send(self, topic: str, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Publish at most ten; return those that SNS could not take this time."""
        entries: list[PublishBatchRequestEntryTypeDef] = [
            {"Id": str(number), "Message": parcel.text, "MessageAttributes": parcel.entry()}
            for number, parcel in enumerate(parcels)
        ]
        with self._noticing():
            async with self._link.asking("SNS", "publish", within_s=CONFIRM_S):
                answer = await self._link.sns.publish_batch(
                    TopicArn=topic, PublishBatchRequestEntries=entries
                )
        for failed in answer.get("Failed", []):
            if failed.get("SenderFault"):
                raise _refusal(failed.get("Code", ""), failed.get("Message", ""))
        # What is neither said to be taken nor to have failed is not taken.
        taken = {int(each["Id"]) for each in answer.get("Successful", []) if "Id" in each}
        return [parcel for number, parcel in enumerate(parcels) if number not in taken]


def _refusal(code: str, said: str) -> TooLarge | Refused:
    if "too long" in said.lower() or "too large" in said.lower():
        return TooLarge(f"SNS answers {code}: the message is too large")
    return Refused(f"SNS answers {code} to publish")


def _wait_s(attempt: int) -> float:
    longest_s: float = min(FIRST_WAIT_S * 2.0 ** (attempt - 1), LONGEST_WAIT_S)
    return longest_s * random.uniform(0.5, 1)  # noqa: S311  # jitter is no secret

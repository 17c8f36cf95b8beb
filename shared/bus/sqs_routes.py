"""Who is subscribed to what: SNS does not say that nobody wanted a message, so it is looked up.

What was found counts for a minute, and is looked up again before a message is called unroutable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from shared.bus.sqs_filters import Filter
from shared.bus.sqs_topology import SnsSubscription, Topology

KEPT_S = 60.0  # a queue that was deleted is noticed within this
AGAIN_S = 1.0  # an answer that is so young is not asked for again


@dataclass(frozen=True, slots=True)
class _Known:
    filters: tuple[Filter, ...]
    at: float


class Routes:
    """The filters of each topic, kept for a bounded time."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._known: dict[str, _Known] = {}
        self._turn = asyncio.Lock()

    async def lead(self, topic_arn: str, attributes: Mapping[str, str], *, surely: bool) -> bool:
        """Say whether a message with the attributes reaches anybody; with `surely` a no is looked up anew.

        Raises Unavailable.
        """
        known = await self._filters(topic_arn, within_s=KEPT_S)
        if any(each.wants(attributes) for each in known):
            return True
        if not surely:
            return False
        return any(each.wants(attributes) for each in await self._filters(topic_arn, within_s=AGAIN_S))

    def forget(self) -> None:
        """Look everything up again: something was declared."""
        self._known.clear()

    async def _filters(self, topic_arn: str, *, within_s: float) -> tuple[Filter, ...]:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._turn:
            known = self._known.get(topic_arn)
            if known is not None and asked_at - known.at <= within_s:
                return known.filters
            at = loop.time()  # before it is looked up: what is declared meanwhile may be missing
            found = await self._topology.subscriptions(topic_arn)
            filters = tuple([each.filter for each in found if await self._is_there(topic_arn, each)])
            self._known[topic_arn] = _Known(filters, at)
            return filters

    async def _is_there(self, topic_arn: str, found: SnsSubscription) -> bool:
        """Look whether the queue exists. SNS goes on without a word when it was deleted."""
        if found.protocol != "sqs":
            return True
        ours, theirs = topic_arn.split(":"), found.endpoint.split(":")
        if theirs[3:5] != ours[3:5]:  # of another region or account, which this one may not ask
            return True
        return await self._topology.queue_url(theirs[-1]) is not None

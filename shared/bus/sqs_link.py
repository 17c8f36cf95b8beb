"""The way to SNS and SQS: bounded calls, their failures in Spool's words, and who answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import NoRegionError

from shared.bus.sqs_errors import AWS_FAILURES, told_aws, was_answered
from shared.kernel.errors import Refused, Unavailable
from shared.settings.aws_address import AwsAddress

if TYPE_CHECKING:
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient

ANSWER_S = 10.0  # any call but a long poll is answered within this, with its repetitions
CONNECT_S = 3.0
READ_S = 25.0  # longer than the longest poll
ATTEMPTS = 3  # of one call: what is throttled or broken is repeated by the SDK, with jitter
CONNECTIONS = 64  # each subscription holds one in a long poll
FRESH_S = 45.0  # an answer that is older says nothing about now


class Side:
    """Whether one of the two services answers, by the outcome of the last call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure = ""  # of the last call, if it had no answer
        self._answered_at: float | None = None

    @property
    def age_s(self) -> float:
        """How long ago it answered last; infinite when it never did."""
        if self._answered_at is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self._answered_at

    def problem(self) -> str:
        """Say why it cannot be counted on now; nothing when it can."""
        if self.failure:
            return self.failure
        return "" if self.age_s < FRESH_S else f"{self.name} has not answered for a while"

    def note(self, failure: str) -> None:
        """Write down the outcome of a call."""
        self.failure = failure
        if not failure:
            self._answered_at = asyncio.get_running_loop().time()


class Link:
    """Two open clients. Made by `Link.open`."""

    def __init__(self, sns: SNSClient, sqs: SQSClient, resources: AsyncExitStack) -> None:
        """Take what `open` made."""
        self.sns = sns
        self.sqs = sqs
        self.sides = {"SNS": Side("SNS"), "SQS": Side("SQS")}
        self._resources = resources

    @classmethod
    async def open(cls, address: AwsAddress, *, region: str | None) -> Link:
        """Make the clients; nothing is asked yet. `region` counts when the address has none.

        What neither gives, the standard chain of the AWS SDKs finds. Raises Refused without a region.
        """
        config = AioConfig(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        session = get_session()
        region = address.region or region or session.get_config_variable("region")
        if region is None and (address.sns_endpoint or address.sqs_endpoint):
            region = "us-east-1"  # who names an endpoint has said where it is; it only has to be signed
        async with AsyncExitStack() as undo:
            try:
                sns = await undo.enter_async_context(
                    session.create_client(
                        "sns", region_name=region, endpoint_url=address.sns_endpoint, config=config
                    )
                )
                sqs = await undo.enter_async_context(
                    session.create_client(
                        "sqs", region_name=region, endpoint_url=address.sqs_endpoint, config=config
                    )
                )
            except NoRegionError as error:
                hint = "set AWS_REGION, or write it as aws:?region=eu-central-1"
                raise Refused("the bus on AWS has no region", hint=hint) from error
            return cls(sns, sqs, undo.pop_all())

    @asynccontextmanager
    async def asking(self, side: str, doing: str, *, within_s: float = ANSWER_S) -> AsyncIterator[None]:
        """Bound a call and tell its failure as one of ours. Raises Unavailable."""
        try:
            async with asyncio.timeout(within_s):
                yield
        except AWS_FAILURES as error:
            told = told_aws(doing, error)
            self.sides[side].note("" if was_answered(error) else str(told))
            raise told from error
        self.sides[side].note("")

    async def probe(self, *, older_than_s: float) -> None:
        """Ask each side that has not been heard of for so long, or that failed, whether it is there."""
        for side in self.sides.values():
            if not side.failure and side.age_s < older_than_s:
                continue
            try:
                async with self.asking(side.name, "say that it is there"):
                    if side.name == "SNS":
                        await self.sns.list_topics()
                    else:
                        await self.sqs.list_queues(MaxResults=1)
            except Unavailable:
                pass  # written down; whoever asks for our health is told

    async def close(self) -> None:
        """Close the clients. Nobody may be waiting for an answer."""
        await self._resources.aclose()

"""A bus on MiniStack, and a stranger's clients, by which tests look and interfere from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from aiobotocore.session import get_session

from shared.bus.message import Subscription
from shared.bus.sqs import SqsBus
from shared.settings.aws_address import AwsAddress

if TYPE_CHECKING:
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient
from tests.integration.sqs.traffic import QUICK


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

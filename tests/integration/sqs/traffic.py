"""What the tests of SNS with SQS send and receive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.bus.sqs_receiver import Times
from shared.settings.aws_address import AwsAddress

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

QUICK = Times(visibility_s=60, poll_s=1)


def queue_name(aws_url: str, name: str = "clipper-clip_requested") -> str:
    return f"{AwsAddress.parse(aws_url).prefix}-{name}"


async def queue_url(sqs: SQSClient, name: str) -> str:
    return (await sqs.get_queue_url(QueueName=name))["QueueUrl"]

"""What Spool calls things in SNS and SQS, where a name has no dots. Pure.

`spool` (topic) --filter: type--> `spool-clipper-clip_requested` --after 200 tries--> `spool-clipper-dead`
With a topic per family the first one is `spool-clip`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.bus.message import DEAD_LETTERS, Subscription
from shared.kernel.errors import Refused
from shared.settings.aws_address import AwsAddress

MAX_QUEUE_CHARACTERS = 80
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one installation."""

    address: AwsAddress

    def topic(self, event_type: str) -> str:
        """Return the topic that events of the type are published to."""
        if self.address.topics == "one":
            return self.address.prefix
        return f"{self.address.prefix}-{_speakable(event_type.partition('_')[0], 'type', event_type)}"

    def queue(self, subscription: Subscription) -> str:
        """Return the queue of the subscription."""
        return self._queue(subscription.service, subscription.name)

    def dead_letters(self, service: str) -> str:
        """Return the queue for what SQS gave up for one of the service's queues."""
        return self._queue(service, DEAD_LETTERS)

    def spoken(self, queue: str, service: str) -> str:
        """Return what a queue of the service is called on every transport: `clipper.clip_requested`."""
        return f"{service}.{queue.removeprefix(f'{self.address.prefix}-{service}-')}"

    def _queue(self, service: str, name: str) -> str:
        queue = _speakable(f"{self.address.prefix}-{service}-{name}", "queue", f"{service}.{name}")
        if len(queue) > MAX_QUEUE_CHARACTERS:
            raise Refused(f"the queue {queue} has a longer name than SQS allows", hint="shorten the prefix")
        return queue


def _speakable(name: str, kind: str, whole: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused(f"the {kind} {whole!r} has characters that AWS does not allow in names")
    return name


def queue_arn(topic_arn: str, queue: str) -> str:
    """Return the ARN of a queue of the account and region that the topic is in."""
    partition, _, region, account = topic_arn.split(":")[1:5]
    return f"arn:{partition}:sqs:{region}:{account}:{queue}"

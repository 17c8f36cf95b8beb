"""What travels over a bus, and what arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The subscription of this name receives what the broker itself has given up.
DEAD_LETTERS = "dead"
# The header that tells there in which queue it died, on every transport as RabbitMQ calls it:
# https://www.rabbitmq.com/docs/dlx#effects
FIRST_QUEUE = "x-first-death-queue"


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes to publish. `type` routes them; every subscription to the type gets a copy."""

    id: str
    type: str
    body: bytes
    content_type: str
    # True for commands: somebody has to be subscribed, or publishing raises Unroutable.
    mandatory: bool
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A message that is kept, with its place among those about the same subject: known by both."""

    subject: str
    sequence: int  # without gaps
    message: Message


@dataclass(frozen=True, slots=True)
class Subscription:
    """A durable queue of one service for the given types, declared before anything is published."""

    service: str
    name: str
    types: tuple[str, ...]
    hands: int = 4  # deliveries taken and not yet acknowledged, at most

    @property
    def queue(self) -> str:
        """The queue's name: `clipper.clip_requested`."""
        return f"{self.service}.{self.name}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a transport hands over and that nobody has acknowledged yet."""

    message_id: str | None  # as the publisher or the transport named it
    queue: str
    body: bytes
    content_type: str | None
    headers: Mapping[str, str]
    redelivered: bool
    receipt: Any = field(repr=False, compare=False)  # the transport's own handle

"""What every transport promises. `tests/contract/test_bus*.py` holds each of them to it.

A transport does three things: it publishes durably, hands over, and takes acknowledgements.
Attempts, delays, order and dead letters are the inbox's business, the same on every transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.bus.message import Delivery, Message, Subscription
from shared.kernel.errors import Permanent, Transient


class Unroutable(Transient):
    """A mandatory message has no subscription. Transient: the service may declare its queue later."""


class TooLarge(Permanent):
    """A message is larger than the transport can ever carry."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a transport is, and what it can and cannot promise.

    `system` names it in metrics and traces, where one exists as OpenTelemetry does: `rabbitmq`, `aws_sqs`.
    """

    system: str
    max_body_bytes: int
    max_batch: int
    survives_restart: bool
    shared_between_processes: bool


@dataclass(frozen=True, slots=True)
class Health:
    """The truth about a transport at this moment, also while it reconnects."""

    connected: bool
    consuming: bool  # every subscription that was asked for is attached
    reason: str = ""  # why not, in words for an operator
    held: int = 0  # deliveries taken, or sent ahead by the broker, and not yet acknowledged


@dataclass(frozen=True, slots=True)
class QueueState:
    """What a transport knows of one subscription's queue. None is what it cannot tell."""

    queue: str  # as Spool names it
    called: str  # as the broker names it
    exists: bool
    ready: int | None = None  # messages that wait
    taken: int | None = None  # messages that somebody holds
    unheard: tuple[str, ...] = ()  # types of the subscription that do not reach the queue


class Bus(Protocol):
    """A transport that is open. Made by `shared.runtime.wiring`, closed by whoever opened it."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def declare(self, subscriptions: Sequence[Subscription]) -> None:
        """Make the queues that do not exist yet, and bind them. Repeating it changes nothing.

        From here on everything published with one of the types is kept for the subscription,
        also while nobody receives. Raises Unavailable.
        """
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return only when every message is durable, and routed where it is mandatory.

        Raises Unroutable, TooLarge or Unavailable. After an error any part of the batch may have been
        published: the caller publishes it again, and receivers dedupe on the id.
        """
        ...

    async def receive(self, subscription: Subscription, *, at_most: int, wait_s: float) -> list[Delivery]:
        """Hand over up to `at_most` deliveries; wait up to `wait_s` for the first one.

        A delivery that is neither acknowledged nor given back comes again, to this or to another
        receiver: at the latest after the process that took it has died. Cancelling a receive loses nothing.
        Raises Unavailable.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget the deliveries. One that was lost in a reconnect is skipped: it comes again."""
        ...

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Let the deliveries be received again at once, by anyone."""
        ...

    async def stop_receiving(self) -> None:
        """Take nothing new; what was taken can still be acknowledged or given back. For the drain."""
        ...

    def health(self) -> Health: ...

    async def close(self) -> None:
        """Release everything. Unacknowledged deliveries come again to others."""
        ...


class Inspectable(Bus, Protocol):
    """A bus that people can look into: `spool bus show`."""

    async def inspect(self, subscription: Subscription) -> QueueState:
        """Say what is there for the subscription, and make nothing. Raises Unavailable."""
        ...

"""The routing table of a service: which type of event goes to which handler, and how it is worked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from shared.bus.message import DEAD_LETTERS, Subscription
from shared.events.envelope import EventData
from shared.events.s3_notification import Bucket
from shared.inbox.outcome import Done, Outcome
from shared.inbox.retry import RetryPolicy

MAX_NAME_CHARACTERS = 128  # of a handler's name, as the column has it
MAX_HANDS = 32  # more wait in the broker, where other containers can take them


@dataclass(frozen=True, slots=True)
class Route:
    """One type of event and its handler, called as `handler(data, work=work)`.

    Dependencies are bound with functools.partial. `ordered`: one after the other per subject, oldest first.
    `given_up(data, reason=…)` says what whoever asked should hear when the work dies; what it returns is
    committed together with the death. `bucket`: where the objects are that notifications of S3 tell of.
    """

    data: type[EventData]
    handler: Callable[..., Awaitable[Outcome]]
    hands: int = 4
    ordered: bool = False
    time_limit_s: float = 600.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    given_up: Callable[..., Awaitable[Done]] | None = None
    bucket: Bucket | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.hands <= MAX_HANDS:
            raise ValueError(f"{self.data.type} has {self.hands} hands; 1 to {MAX_HANDS} are possible")

    @property
    def handler_name(self) -> str:
        """The handler as one greps for it: `services.clipper.handlers.cut_clip`."""
        handler = self.handler
        while isinstance(handler, partial):
            handler = handler.func
        named = handler if hasattr(handler, "__qualname__") else type(handler)
        return f"{named.__module__}.{named.__qualname__}"[:MAX_NAME_CHARACTERS]


def subscriptions_to(service: str, types: Iterable[type[EventData]]) -> tuple[Subscription, ...]:
    """Return what a service that listens to these types needs on the bus, also before it is put together."""
    queues = (Subscription(service, data.type, (data.type,)) for data in types)
    return (*queues, Subscription(service, DEAD_LETTERS, ()))


@dataclass(frozen=True, slots=True)
class Router:
    """All routes of a service."""

    service: str
    routes: tuple[Route, ...]

    def __post_init__(self) -> None:
        types = [route.data.type for route in self.routes]
        if len(set(types)) != len(types):
            raise ValueError(f"{self.service} has two routes for one type of event")

    @property
    def source(self) -> str:
        """The CloudEvents `source` of what the service tells."""
        return f"/spool/{self.service}"

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What to declare on the bus: one queue per route, and one for what the broker gives up."""
        return (*(self.subscription(route) for route in self.routes), self.dead_letters)

    @property
    def dead_letters(self) -> Subscription:
        """What brings the deliveries that the broker itself gave up."""
        return Subscription(service=self.service, name=DEAD_LETTERS, types=())

    @property
    def hands(self) -> int:
        """How many pieces of work can be done at once: the database wants as many connections."""
        return sum(route.hands for route in self.routes)

    def subscription(self, route: Route) -> Subscription:
        return Subscription(
            service=self.service, name=route.data.type, types=(route.data.type,), hands=route.hands
        )

"""What the broker itself gave up is kept where people look: among the dead letters of the inbox.

RabbitMQ does that to a delivery that came back too often, as when a process dies of it before it is written
down. Such a message would otherwise lie in a queue that nobody reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.bus.message import FIRST_QUEUE, Delivery, Subscription
from shared.bus.port import Bus
from shared.database.engine import Connection, Database
from shared.database.inserting import insert_into
from shared.database.tables import State, inbox
from shared.events.envelope import Event
from shared.events.reading import Letter, Reading, read_letter
from shared.events.unreadable import FieldProblem, Unreadable
from shared.inbox.row import (
    GIVEN_UP_BY_BROKER,
    TRANSPORT_SOURCE,
    digest_id,
    storable,
    trace_columns,
    usable_id,
)
from shared.kernel.errors import Transient
from shared.observability.metrics import Entering
from shared.observability.tracing import trace_id

log = structlog.get_logger()

WAIT_S = 30.0
PAUSE_S = 5.0


class Undertaker:
    """Writes the broker's dead letters of one service into the inbox, and acknowledges them then."""

    def __init__(self, dead_letters: Subscription, *, bus: Bus, database: Database) -> None:
        self._subscription = dead_letters
        self._service = dead_letters.service
        self._bus = bus
        self._database = database
        self._counted = Entering.of(bus.capabilities.system, dead_letters.queue)

    async def run(self) -> None:
        """Go on until cancelled. What is cancelled half-way comes again, and is recognised."""
        while True:
            try:
                deliveries = await self._bus.receive(
                    self._subscription, at_most=self._subscription.hands, wait_s=WAIT_S
                )
                if deliveries:
                    await self._keep(deliveries)
                    continue
            except (Transient, SQLAlchemyError) as error:
                log.warning("inbox.dead_letters_wait", service=self._service, reason=str(error))
            # Also when receiving has stopped: then it says at once that nothing came.
            await asyncio.sleep(PAUSE_S)

    async def _keep(self, deliveries: Sequence[Delivery]) -> None:
        rows = [row for delivery in deliveries for row in self._rows(delivery)]

        async def unit(connection: Connection) -> None:
            now = self._database.now_sql()
            for row in rows:
                insertion = insert_into(connection, inbox).values(received_ms=now, done_ms=now, **row)
                # The event may have been written down before it was given up: then it is known.
                identity = ("consumer", "source", "event_id")
                await connection.execute(insertion.on_conflict_do_nothing(index_elements=identity))

        await self._database.write(unit)
        await self._bus.acknowledge(deliveries)
        self._counted.count(accepted=0, duplicate=0, dead=len(rows))
        for row in rows:
            log.error(
                "inbox.given_up_by_broker",
                queue=row["consumer"],
                event_id=row["event_id"],
                type=row["type"],
                subject=row["subject"],
                trace_id=trace_id(row["traceparent"]),
            )

    def _rows(self, delivery: Delivery) -> list[dict[str, Any]]:
        """Make rows as the entrance would have made them: one of each event, or one of what holds none."""
        consumer = self._consumer(delivery)
        event_type = consumer.removeprefix(f"{self._service}.")
        transport_id = usable_id(delivery.message_id) or digest_id(delivery.body)
        letter = Letter(delivery.body, transport_id, delivery.headers, delivery.content_type)
        no_event = Unreadable((FieldProblem("body", "holds no event"),))
        content_type = delivery.content_type
        return [
            {
                "consumer": consumer,
                "type": event_type,
                **_identity(reading),
                **trace_columns(_event(reading), delivery.headers),
                "body": reading.body,
                "content_type": storable(content_type, characters=128) if content_type else None,
                "ordered": False,
                "state": int(State.DEAD),
                "outcome": GIVEN_UP_BY_BROKER,
                "reason": "the broker gave it up: it was delivered too often and never acknowledged",
            }
            for reading in read_letter(letter, expected=event_type)
            or [Reading(no_event, delivery.body, transport_id)]
        ]

    def _consumer(self, delivery: Delivery) -> str:
        """Return the queue that it died in, so that a replay is worked there."""
        queue = storable(delivery.headers.get(FIRST_QUEUE, ""), characters=128)
        return queue if queue.startswith(f"{self._service}.") else self._subscription.queue


def _identity(reading: Reading) -> dict[str, str]:
    """Return source, id and subject; those of the transport for what is no event."""
    if isinstance(reading.found, Unreadable):
        named = usable_id(reading.transport_id) or digest_id(reading.body)
        return {"source": TRANSPORT_SOURCE, "event_id": named, "subject": ""}
    event = reading.found.event
    return {"source": event.source, "event_id": event.id, "subject": reading.found.data.subject}


def _event(reading: Reading) -> Event | None:
    return None if isinstance(reading.found, Unreadable) else reading.found.event

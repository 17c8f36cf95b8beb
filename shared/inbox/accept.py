"""Deliveries become rows, and only then they are acknowledged: from there on the work is ours."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import BigInteger, ColumnElement, Insert, literal, literal_column, select
from sqlalchemy.exc import SQLAlchemyError

from shared.bus.message import Delivery, Subscription
from shared.bus.port import Bus
from shared.database.engine import Connection, Database, OutcomeUnknown
from shared.database.inserting import insert_by, insert_into
from shared.database.row_lists import RowList
from shared.database.tables import State, inbox
from shared.events.reading import Letter, Reading, read_letter
from shared.events.registry import Received
from shared.events.unreadable import Unreadable
from shared.inbox.claims import Claim, Claims
from shared.inbox.router import Route
from shared.inbox.row import (
    READY,
    TRANSPORT_SOURCE,
    WORKING,
    ClaimedRow,
    digest_id,
    storable,
    trace_columns,
    usable_id,
)
from shared.kernel.checkpoint import Checkpoint, Step
from shared.kernel.errors import Transient
from shared.observability.metrics import Entering
from shared.observability.tracing import NOTHING, Role, Span, TraceContext, hop, recording, trace_id

log = structlog.get_logger()

_IDENTITY = ("consumer", "source", "event_id")
FIRST = 1  # the token and the attempt of what is claimed as it comes
# What a delivery brings to its row; the rest is the same for all of a subscription.
_BROUGHT = ("source", "event_id", "subject", "body", "content_type", "traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A delivery as it will be a row: read, or dead with the reason."""

    values: dict[str, Any]
    received: Received | None

    @property
    def identity(self) -> tuple[str, str]:
        return self.values["source"], self.values["event_id"]

    def claimed(self, row_id: int, received_ms: int) -> ClaimedRow:
        """Return the row that it became, claimed as it came: nobody else has touched it since."""
        values = self.values
        return ClaimedRow(
            id=row_id,
            token=FIRST,
            attempt=FIRST,
            source=values["source"],
            event_id=values["event_id"],
            type=values["type"],
            subject=values["subject"],
            body=values["body"],
            traceparent=values["traceparent"],
            tracestate=values["tracestate"],
            received_ms=received_ms,
            replayed_ms=None,
            failing_since_ms=None,
            wake_count=0,
            reason=None,
            cancel_requested=False,
        )

    @property
    def trace(self) -> TraceContext | None:
        parent = self.values["traceparent"]
        return TraceContext(parent, self.values["tracestate"]) if parent else None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A piece of work that was claimed as it came."""

    claim: Claim
    received: Received


class Entrance:
    """Where the deliveries of one subscription come in."""

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        *,
        bus: Bus,
        database: Database,
        claims: Claims,
        checkpoint: Checkpoint,
    ) -> None:
        self._route = route
        self._queue = subscription.queue
        self._bus = bus
        self._database = database
        self._claims = claims
        self._checkpoint = checkpoint
        self._counted = Entering.of(bus.capabilities.system, subscription.queue)
        self._brought = RowList(
            database.dialect,
            "brought",
            place=BigInteger(),
            **{name: inbox.c[name].type for name in _BROUGHT},
        )
        self._living = self._insert_living()

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Accepted]:
        """Write the rows, commit, acknowledge. Return what is ours to do now: nothing where order matters.

        Raises Transient when nothing could be written; then nothing is acknowledged, and the same
        deliveries can be brought again.
        """
        prepared = [each for delivery in deliveries for each in self._prepare(delivery)]
        if not self._route.ordered:
            # The order is everybody's: two that insert the same rows must not wait for each other.
            prepared.sort(key=lambda each: each.identity)
        self._checkpoint(Step.PARSED)
        with self._receipt(prepared):
            deadline_ms = self._claims.deadline_ms()
            try:
                rows = await self._insert_all(prepared) if prepared else []
            except OutcomeUnknown:
                # Should they have been inserted, they are known when they come again, and held by nobody.
                self._claims.look_for_astray(self._queue)
                raise
            self._checkpoint(Step.ACCEPTED)
            for delivery in deliveries:
                self._counted.size.observe(len(delivery.body))
            accepted = self._take_up(prepared, rows, deadline_ms)
            await self._acknowledge(deliveries)
        return accepted

    def _receipt(self, prepared: Sequence[_Prepared]) -> Span:
        """Return the span of receiving a batch: no part of any of their traces, but linked to each."""
        if not recording():
            return NOTHING
        return hop(
            f"receive {self._queue}",
            Role.CLIENT,
            parent=None,
            links=[each.trace for each in prepared if each.trace],
            system=self._bus.capabilities.system,
            destination=self._queue,
            operation="receive",
            batch=len(prepared),
        )

    def _prepare(self, delivery: Delivery) -> list[_Prepared]:
        """Read a delivery: mostly one row comes of it, several of a notification with several records."""
        # Without a name of its own each delivery is new. Should it come twice, its handler knows the request.
        transport_id = usable_id(delivery.message_id) or str(uuid.uuid4())
        letter = Letter(delivery.body, transport_id, delivery.headers, delivery.content_type)
        readings = read_letter(letter, expected=self._route.data.type, bucket=self._route.bucket)
        if not readings:
            self._counted.ignored.inc()
        return [self._row(delivery, reading) for reading in readings]

    def _row(self, delivery: Delivery, reading: Reading) -> _Prepared:
        if isinstance(reading.found, Unreadable):
            return self._stillborn(delivery, reading, reading.found)
        event = reading.found.event
        values = {
            "source": event.source,
            "event_id": event.id,
            "subject": reading.found.data.subject,
            **trace_columns(event, delivery.headers),
        }
        return _Prepared(self._common(delivery, reading) | values, reading.found)

    def _stillborn(self, delivery: Delivery, reading: Reading, error: Unreadable) -> _Prepared:
        """Keep what is no event under its transport's name: its own stays free for when it comes mended."""
        named = usable_id(delivery.message_id) and usable_id(reading.transport_id)
        values = {
            "source": TRANSPORT_SOURCE,
            "event_id": named or digest_id(reading.body),
            "subject": "",
            **trace_columns(None, delivery.headers),
            "state": int(State.DEAD),
            "reason": storable(str(error)),
        }
        return _Prepared(self._common(delivery, reading) | values, None)

    def _common(self, delivery: Delivery, reading: Reading) -> dict[str, Any]:
        content_type = delivery.content_type
        return {
            "consumer": self._queue,
            "type": self._route.data.type,
            "body": reading.body,
            "content_type": storable(content_type, characters=128) if content_type else None,
            "ordered": self._route.ordered,
        }

    async def _insert_all(self, prepared: Sequence[_Prepared]) -> list[ClaimedRow]:
        """Insert the batch; when it fails as a whole, each row alone, so that none holds its neighbours."""
        try:
            return await self._insert(prepared)
        except (SQLAlchemyError, ValueError) as error:
            log.warning("inbox.batch_failed", queue=self._queue, rows=len(prepared), reason=str(error))
        rows: list[ClaimedRow] = []
        for each in prepared:
            rows += await self._insert_alone(each)
        return rows

    async def _insert_alone(self, prepared: _Prepared) -> list[ClaimedRow]:
        try:
            return await self._insert([prepared])
        except (SQLAlchemyError, ValueError) as error:
            # Something in it no database of this kind can hold, such as NUL in a text. Its bytes can be kept.
            values = prepared.values | {
                "source": TRANSPORT_SOURCE,
                "event_id": digest_id(prepared.values["body"]),
                "subject": "",
                "state": int(State.DEAD),
                "reason": storable(f"cannot be stored: {error}"),
            }
            return await self._insert([_Prepared(values, None)])

    async def _insert(self, prepared: Sequence[_Prepared]) -> list[ClaimedRow]:
        """Insert what is not known yet, in one transaction. Return the rows that are new and not dead."""
        firsts = _firsts(prepared)
        alive = [each.values for each in firsts.values() if each.received is not None]
        dead = [each.values for each in prepared if each.received is None]
        brought = self._brought.bind(
            [(place, *(values[name] for name in _BROUGHT)) for place, values in enumerate(alive)]
        )

        def claimed(row_id: int, source: str, event_id: str, received_ms: int) -> ClaimedRow:
            return firsts[source, event_id].claimed(row_id, received_ms)

        async def unit(connection: Connection) -> tuple[list[ClaimedRow], int]:
            rows: list[ClaimedRow] = []
            buried = 0
            if alive:
                rows = [
                    claimed(row.id, row.source, row.event_id, row.received_ms)
                    for row in await connection.execute(self._living, brought)
                ]
            if dead:
                buried = len((await connection.execute(self._dead(connection), dead)).all())
            return rows, buried

        rows, buried = await self._database.write(unit)
        again = len(prepared) - len(rows) - buried
        self._counted.count(accepted=len(rows), duplicate=again, dead=buried)
        if buried:
            for values in dead:
                log.warning(
                    "event.unreadable",
                    queue=self._queue,
                    type=values["type"],
                    event_id=values["event_id"],
                    reason=values["reason"],
                    trace_id=trace_id(values["traceparent"]),
                )
        return rows

    def _insert_living(self) -> Insert:
        """Return the statement that accepts `brought`, the same however many there are."""
        now = self._database.now_sql()
        same: dict[str, ColumnElement[Any]] = {
            "consumer": literal(self._queue),
            "type": literal(self._route.data.type),
            "ordered": literal(self._route.ordered),
            "state": READY if self._route.ordered else WORKING,
            "received_ms": now,
        }
        if not self._route.ordered:
            same |= {
                "attempt": literal(FIRST),
                "token": literal(FIRST),
                "worker": literal(self._claims.worker),
                "lease_until_ms": now + literal_column(str(self._claims.lease_ms)),
                "claimed_ms": now,
            }
        brought = self._brought.table.c
        rows = select(*(brought[name] for name in _BROUGHT), *same.values()).order_by(brought.place)
        # The target is named: a bare DO NOTHING would also swallow a collision in a lane, and lose an event.
        return (
            insert_by(self._database.dialect, inbox)
            .from_select([*_BROUGHT, *same], rows)
            .on_conflict_do_nothing(index_elements=_IDENTITY)
            .returning(inbox.c.id, inbox.c.source, inbox.c.event_id, inbox.c.received_ms)
        )

    def _dead(self, connection: Connection) -> Insert:
        now = self._database.now_sql()
        return (
            insert_into(connection, inbox)
            .values(received_ms=now, done_ms=now, outcome="dead")
            .on_conflict_do_nothing(index_elements=_IDENTITY)
            .returning(inbox.c.id)
        )

    def _take_up(
        self, prepared: Sequence[_Prepared], rows: Sequence[ClaimedRow], deadline_ms: int
    ) -> list[Accepted]:
        if self._route.ordered:
            return []
        read = {identity: first.received for identity, first in _firsts(prepared).items()}
        return [
            Accepted(self._claims.hold(row, deadline_ms=deadline_ms, fresh=True), received)
            for row in rows
            if (received := read[row.source, row.event_id]) is not None
        ]

    async def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self._bus.acknowledge(deliveries)
        except Transient as error:
            # They come again, and are recognised.
            log.info("inbox.not_acknowledged", queue=self._queue, reason=str(error))
            return
        self._checkpoint(Step.ACKNOWLEDGED)


def _firsts(prepared: Sequence[_Prepared]) -> dict[tuple[str, str], _Prepared]:
    """Return one for each identity: of two with one name the first is worked, as if they had come apart."""
    firsts: dict[tuple[str, str], _Prepared] = {}
    for each in prepared:
        firsts.setdefault(each.identity, each)
    return firsts

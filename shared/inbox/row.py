"""A piece of work as its row says it was when it was claimed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, literal_column, select

from shared.database.tables import State, inbox
from shared.events.envelope import Event
from shared.observability.tracing import TraceContext, nearest, read_headers, read_trace

# Written into the statement, not bound: with parameters PostgreSQL's generic plans and SQLite
# could not know that the partial indexes over unfinished rows apply.
READY: ColumnElement[int] = literal_column(str(int(State.READY)))
WORKING: ColumnElement[int] = literal_column(str(int(State.WORKING)))
DEAD: ColumnElement[int] = literal_column(str(int(State.DEAD)))
DONE: ColumnElement[int] = literal_column(str(int(State.DONE)))

MAX_REASON_CHARACTERS = 2_000
MAX_ID_CHARACTERS = 256
GIVEN_UP_BY_BROKER = "given_up_by_broker"  # the outcome of what it delivered too often
TRANSPORT_SOURCE = "transport"  # of what has no readable source of its own

CLAIMED_COLUMNS = (
    inbox.c.id,
    inbox.c.token,
    inbox.c.attempt,
    inbox.c.source,
    inbox.c.event_id,
    inbox.c.type,
    inbox.c.subject,
    inbox.c.body,
    inbox.c.traceparent,
    inbox.c.tracestate,
    inbox.c.received_ms,
    inbox.c.replayed_ms,
    inbox.c.failing_since_ms,
    inbox.c.wake_count,
    inbox.c.reason,
    inbox.c.cancel_requested,
)


class ClaimedRow(NamedTuple):
    """What a hand has to know. `id` and `token` together are the claim."""

    id: int
    token: int
    attempt: int
    source: str
    event_id: str
    type: str
    subject: str
    body: bytes | None
    traceparent: str | None
    tracestate: str | None
    received_ms: int
    replayed_ms: int | None
    failing_since_ms: int | None
    wake_count: int
    reason: str | None
    cancel_requested: bool

    @property
    def trace(self) -> TraceContext | None:
        """The trace that it was asked for in: valid, since the entrance keeps no other."""
        return TraceContext(self.traceparent, self.tracestate) if self.traceparent else None

    @property
    def waiting_since_ms(self) -> int:
        return self.replayed_ms or self.received_ms


def locked(*conditions: ColumnElement[bool]) -> CTE:
    """Return the ids of the rows that meet the conditions, locked by id, for the statement that changes them.

    Whoever changes several rows locks them in this order: two that want the same rows in two orders would
    wait for each other until PostgreSQL ends one of them.
    """
    ids = select(inbox.c.id).where(*conditions).order_by(inbox.c.id).with_for_update()
    return ids.cte("locked").prefix_with("MATERIALIZED", dialect="postgresql")


def claimed_row(row: Sequence[Any]) -> ClaimedRow:
    """Read the columns of `CLAIMED_COLUMNS`, which stand in the order of the fields."""
    return ClaimedRow(*row)


def trace_columns(event: Event | None, headers: Mapping[str, str]) -> dict[str, str | None]:
    """Return what a row keeps of the trace that an event tells, or the message that brought it."""
    told = read_trace(event.traceparent, event.tracestate) if event else None
    trace = nearest(told, read_headers(headers))
    return trace._asdict() if trace else {"traceparent": None, "tracestate": None}


def storable(text: str, *, characters: int = MAX_REASON_CHARACTERS) -> str:
    """Return text that every database takes: no NUL, no lone surrogate, not endless."""
    return text[:characters].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def digest_id(body: bytes) -> str:
    """Name what has no name by its bytes, so that it is recognised when it comes again."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def usable_id(name: str | None) -> str | None:
    """Return the name that a transport gave, or None when no database could keep it as it is."""
    if not name or len(name) > MAX_ID_CHARACTERS or storable(name) != name:
        return None
    return name

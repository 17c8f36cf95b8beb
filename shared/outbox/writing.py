"""Events become rows of the outbox, in the same transaction as what they tell of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from sqlalchemy import BigInteger, Executable, String, insert, literal_column, select

from shared.bus.message import Numbered
from shared.database.engine import Connection
from shared.database.inserting import insert_by
from shared.database.now import now_by
from shared.database.row_lists import RowList
from shared.database.tables import outbox, outbox_subject
from shared.events.envelope import Event, EventData, Kind, wrap
from shared.kernel.clock import Clock
from shared.kernel.ids import new_id
from shared.observability.tracing import here, next_hop
from shared.outbox.unsent import message_of

Write = Callable[[Connection], Awaitable[None]]

# A CloudEvents `sequence` is compared as text; this many digits last for every subject, which begins at the
# seconds since 1970.
# https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/sequence.md
SEQUENCE_DIGITS = 12


async def append(connection: Connection, events: Sequence[tuple[Event, bool]], now_ms: int) -> list[Numbered]:
    """Append events, each with whether somebody has to hear it. Their order per subject is kept.

    Returns them as they are to be published once they are committed.

    The subjects' rows are written first, in one order for everybody: whoever writes to a subject next waits
    there until this transaction has ended, so sequences are committed in their own order.
    """
    if not events:
        return []
    statements = _statements(connection.dialect.name)
    counts = Counter(_subject(event) for event, _ in events)
    reserved = await connection.execute(statements.reserve, statements.subjects.bind(sorted(counts.items())))
    following = {row.subject: row.last_sequence - counts[row.subject] for row in reserved}
    placed = []
    for event, mandatory in events:
        following[_subject(event)] += 1
        placed.append(_placed(event, following[_subject(event)], mandatory=mandatory))
    rows = [_row(each, now_ms) for each in placed]
    await connection.execute(statements.insert, statements.rows.bind(rows))
    return [_numbered(each) for each in placed]


class _Placed(NamedTuple):
    """An event with its place among those of its subject, and what is published of it."""

    event: Event
    sequence: int
    body: bytes
    mandatory: bool


def _placed(event: Event, sequence: int, *, mandatory: bool) -> _Placed:
    numbered = event.model_copy(update={"sequence": f"{sequence:0{SEQUENCE_DIGITS}}"})
    return _Placed(event, sequence, numbered.to_bytes(), mandatory)


def _row(placed: _Placed, now_ms: int) -> tuple[object, ...]:
    event, sequence, body, mandatory = placed
    return (
        _subject(event),
        sequence,
        event.id,
        event.source,
        event.type,
        mandatory,
        body,
        event.traceparent,
        event.tracestate,
        now_ms,
    )


def _numbered(placed: _Placed) -> Numbered:
    event, sequence, body, mandatory = placed
    message = message_of(event.id, event.type, body, event.traceparent, event.tracestate, mandatory=mandatory)
    return Numbered(_subject(event), sequence, message)


_WRITTEN = (
    outbox.c.subject,
    outbox.c.sequence,
    outbox.c.event_id,
    outbox.c.source,
    outbox.c.type,
    outbox.c.mandatory,
    outbox.c.body,
    outbox.c.traceparent,
    outbox.c.tracestate,
    outbox.c.created_ms,
)


@dataclass(frozen=True, slots=True)
class _Statements:
    subjects: RowList
    reserve: Executable
    rows: RowList
    insert: Executable


@cache
def _statements(dialect: str) -> _Statements:
    """Return the two statements of an append, however many events and subjects it has."""
    subjects = RowList(dialect, "told", subject=String(), number=BigInteger())
    rows = RowList(dialect, "told", **{column.name: column.type for column in _WRITTEN})
    # A subject begins at the seconds since 1970: one that was purged and comes back has grown all the same.
    # Read once, therefore materialized. What comes before the beginning counts as sent.
    counted = (
        select(
            subjects.table.c.subject, subjects.table.c.number, (now_by(dialect) // 1000).label("beginning")
        )
        .cte("counted")
        .prefix_with("MATERIALIZED")
    )
    # The order is everybody's. It also keeps SQLite from taking ON CONFLICT for the ON of a join.
    new = select(
        counted.c.subject, counted.c.beginning + counted.c.number, counted.c.beginning, literal_column("0")
    ).order_by(counted.c.subject)
    named = ["subject", "last_sequence", "sent_sequence", "lease_until_ms"]
    reserving = insert_by(dialect, outbox_subject).from_select(named, new)
    number = reserving.excluded.last_sequence - reserving.excluded.sent_sequence
    reserve = reserving.on_conflict_do_update(
        index_elements=["subject"], set_={"last_sequence": outbox_subject.c.last_sequence + number}
    ).returning(outbox_subject.c.subject, outbox_subject.c.last_sequence)
    insertion = insert(outbox).from_select(
        [column.name for column in _WRITTEN], select(*(rows.table.c[column.name] for column in _WRITTEN))
    )
    return _Statements(subjects, reserve, rows, insertion)


def _subject(event: Event) -> str:
    return event.subject or ""


class Outbox:
    """What a service's HTTP routes tell with: rows in the transaction of the caller's own write."""

    def __init__(self, clock: Clock, *, source: str, written: Callable[[], None]) -> None:
        """`written` is called when a row is written, before its commit: `Relay.wake`."""
        self._clock = clock
        self._source = source
        self._written = written

    def command(self, data: EventData) -> Write:
        """Return the write that asks for something, as a new event: asked twice, it is done twice.

        It is a part of the trace that this is called in.
        """
        trace = here() or next_hop(None)

        async def write(connection: Connection) -> None:
            now_ms = self._clock.now_ms()
            event = wrap(
                data,
                id=new_id(self._clock),
                source=self._source,
                time_ms=now_ms,
                traceparent=trace.traceparent,
                tracestate=trace.tracestate,
            )
            await append(connection, [(event, data.kind is Kind.COMMAND)], now_ms)
            self._written()

        return write

"""Events become rows of the outbox, in the same transaction as what they tell of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import insert

from shared.database.engine import Connection
from shared.database.inserting import insert_into
from shared.database.tables import outbox, outbox_subject
from shared.events.envelope import Event, EventData, Kind, wrap
from shared.kernel.clock import Clock
from shared.kernel.ids import new_id
from shared.observability.tracing import next_hop

Write = Callable[[Connection], Awaitable[None]]

# A CloudEvents `sequence` is compared as text; this many digits last for every subject.
# https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/sequence.md
SEQUENCE_DIGITS = 12


async def append(connection: Connection, events: Sequence[tuple[Event, bool]], now_ms: int) -> None:
    """Append events, each with whether somebody has to hear it. Their order per subject is kept.

    The subjects' rows are written first, in one order for everybody: whoever writes to a subject next waits
    there until this transaction has ended, so sequences are committed in their own order.
    """
    if not events:
        return
    last = await _reserve(connection, Counter(_subject(event) for event, _ in events))
    following = {subject: sequence - count for subject, (sequence, count) in last.items()}
    rows = []
    for event, mandatory in events:
        subject = _subject(event)
        following[subject] += 1
        numbered = event.model_copy(update={"sequence": f"{following[subject]:0{SEQUENCE_DIGITS}}"})
        rows.append(
            {
                "subject": subject,
                "sequence": following[subject],
                "event_id": event.id,
                "source": event.source,
                "type": event.type,
                "mandatory": mandatory,
                "body": numbered.to_bytes(),
                "traceparent": event.traceparent,
                "created_ms": now_ms,
            }
        )
    await connection.execute(insert(outbox), rows)


async def _reserve(connection: Connection, counts: Counter[str]) -> dict[str, tuple[int, int]]:
    """Return for each subject its last sequence after this transaction, and how many of them are ours."""
    statement = insert_into(connection, outbox_subject)
    reserve = statement.on_conflict_do_update(
        index_elements=["subject"],
        set_={"last_sequence": outbox_subject.c.last_sequence + statement.excluded.last_sequence},
    ).returning(outbox_subject.c.subject, outbox_subject.c.last_sequence)
    reserved = await connection.execute(
        reserve, [{"subject": subject, "last_sequence": counts[subject]} for subject in sorted(counts)]
    )
    return {row.subject: (row.last_sequence, counts[row.subject]) for row in reserved}


def _subject(event: Event) -> str:
    return event.subject or ""


class Outbox:
    """What a service's HTTP routes tell with: rows in the transaction of the caller's own write."""

    def __init__(self, clock: Clock, *, source: str, written: Callable[[], None]) -> None:
        """`written` is called when a row is written, before its commit: `Relay.wake`."""
        self._clock = clock
        self._source = source
        self._written = written

    def command(self, data: EventData, *, traceparent: str | None = None) -> Write:
        """Return the write that asks for something, as a new event: asked twice, it is done twice."""

        async def write(connection: Connection) -> None:
            now_ms = self._clock.now_ms()
            event = wrap(
                data,
                id=new_id(self._clock),
                source=self._source,
                time_ms=now_ms,
                traceparent=next_hop(traceparent),
            )
            await append(connection, [(event, data.kind is Kind.COMMAND)], now_ms)
            self._written()

        return write

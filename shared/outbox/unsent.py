"""What this process has just told: events that need not be read back from their rows to be published."""

from __future__ import annotations

from collections.abc import Iterable

from shared.bus.message import Message, Numbered
from shared.events.envelope import CONTENT_TYPE
from shared.observability.tracing import TraceContext

MAX_KEPT = 1024  # what a burst leaves before the relay comes round; beyond it the rows are read
MAX_BODY_BYTES = 16 * 1024  # of one that is kept: 16 MiB for all of them


class Unsent:
    """Events that this process has committed and not published yet.

    Only a shortcut, never the truth: what is missing here is read from its row. Nothing is kept before its
    COMMIT is known, for a number that was rolled back is given to another event. Several threads may use it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Numbered] = {}

    def keep(self, events: Iterable[Numbered]) -> None:
        """Keep events whose transaction has been committed."""
        small = (each for each in events if len(each.message.body) <= MAX_BODY_BYTES)
        self._kept.update({(each.subject, each.sequence): each for each in small})
        if len(self._kept) > MAX_KEPT:
            self.forget()

    def take(self, subject: str, *, after: int, until: int) -> list[Numbered]:
        """Return the events of a subject, all from `after` to `until`, or none. They are kept no longer."""
        found = [self._kept.pop((subject, sequence), None) for sequence in range(after + 1, until + 1)]
        known = [each for each in found if each is not None]
        return known if len(known) == len(found) else []

    def forget(self) -> None:
        """Keep none of them: others may have published what still lies here."""
        self._kept.clear()


def message_of(
    event_id: str,
    event_type: str,
    body: bytes,
    traceparent: str | None,
    tracestate: str | None,
    *,
    mandatory: bool,
) -> Message:
    """Return what is published of an event, from what it is or from what its row keeps of it."""
    headers = TraceContext(traceparent, tracestate).headers if traceparent else {}
    return Message(event_id, event_type, body, CONTENT_TYPE, mandatory, headers)

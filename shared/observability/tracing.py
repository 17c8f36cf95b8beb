"""The story of one request over all hops: W3C trace context carried on, and spans where they are collected.

A *hop* is what happens to a request in one process: an HTTP request, a piece of work, a publication.
It has a span of its own in the trace of its parent, also while nothing is collected; what follows from it
carries that. A *stage* is a part of a hop, and costs nothing while nothing is collected.

Sources: https://www.w3.org/TR/trace-context/ (both headers),
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md (attributes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from enum import StrEnum
from random import getrandbits
from types import TracebackType
from typing import NamedTuple, Protocol, Self

# A later version may say more behind a dash; of this one there is nothing more.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_TRACESTATE = re.compile(r"[ -~]{1,512}")
_KNOWN_FLAGS = 0x03  # sampled, random: others are not ours to pass on
# A trace that begins here is one that whoever comes next may record: our logs name it.
_NEW_FLAGS = 0x01


class Role(StrEnum):
    """What a span is to the span before it."""

    SERVER = "server"
    CLIENT = "client"
    CONSUMER = "consumer"
    PRODUCER = "producer"
    PART = "internal"


class TraceContext(NamedTuple):
    """Where in which trace something happens: a valid `traceparent`, and what vendors wrote beside it."""

    traceparent: str
    tracestate: str | None = None

    @property
    def trace_id(self) -> str:
        """The 32 hex digits that all hops of one story share."""
        return self.traceparent[3:35]

    @property
    def headers(self) -> dict[str, str]:
        """What a request or a message to somebody else carries."""
        if self.tracestate:
            return {"traceparent": self.traceparent, "tracestate": self.tracestate}
        return {"traceparent": self.traceparent}


class Span(Protocol):
    """Something that takes a while. Entered once; an exception that leaves it marks it as failed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None: ...

    @property
    def context(self) -> TraceContext | None:
        """What follows from it carries this; None for a stage that nobody collects."""
        ...

    def rename(self, name: str) -> None: ...

    def note(self, **attributes: object) -> None: ...

    def fail(self, reason: str) -> None: ...


class Hop(Span, Protocol):
    """The span of a hop: there is always something for what follows to carry."""

    @property
    def context(self) -> TraceContext: ...


class Recorder(Protocol):
    """Collects spans, as `shared.observability.otlp` does; it knows what attributes are called there."""

    def start(
        self,
        name: str,
        role: Role,
        *,
        parent: TraceContext | None,
        links: Iterable[TraceContext],
        current: bool,
        attributes: Mapping[str, object],
    ) -> Hop: ...

    def start_part(self, name: str, *, current: bool, attributes: Mapping[str, object]) -> Span: ...


def read_trace(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """Return what a caller sent, or None when there is no trace to continue."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    flags = int(found[4], 16) & _KNOWN_FLAGS
    state = tracestate if tracestate and _TRACESTATE.fullmatch(tracestate) else None
    return TraceContext(f"00-{found[2]}-{found[3]}-{flags:02x}", state)


def read_headers(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the trace in the headers or attributes of a message."""
    return read_trace(headers.get("traceparent"), headers.get("tracestate"))


def nearest(event: TraceContext | None, message: TraceContext | None) -> TraceContext | None:
    """Choose between the trace that an event tells of itself and the one of the message that brought it.

    The message's is nearer where it goes on with the event's own trace. Where it is another one, it is that
    of a gateway, and the event's own story counts.
    """
    if event is None or message is None:
        return event or message
    return message if message.trace_id == event.trace_id else event


def trace_id(traceparent: str | None) -> str | None:
    """Return the 32 hex digits that all hops of one story share, or None when there are none."""
    found = read_trace(traceparent)
    return found.trace_id if found else None


def next_hop(parent: TraceContext | None) -> TraceContext:
    """Return the context of what follows: the same trace and flags with a span of its own, or a new trace."""
    span = f"{getrandbits(64) or 1:016x}"
    if parent is None:
        return TraceContext(f"00-{getrandbits(128) or 1:032x}-{span}-{_NEW_FLAGS:02x}")
    before = parent.traceparent
    return TraceContext(f"{before[:36]}{span}{before[52:]}", parent.tracestate)


_HERE: ContextVar[Span | None] = ContextVar("span", default=None)


def here() -> TraceContext | None:
    """Return the context of the hop or stage that this task is in: what it sends to others carries it."""
    span = _HERE.get()
    return span.context if span else None


def enter(span: Span) -> Token[Span | None]:
    """Make a span the one that this task is in. For recorders; everybody else uses `with`."""
    return _HERE.set(span)


def leave(token: Token[Span | None]) -> None:
    """Undo `enter`."""
    _HERE.reset(token)


class _Hop:
    """A hop while nothing is collected: a context for what follows, made when something does."""

    __slots__ = ("_context", "_current", "_parent", "_token")

    def __init__(self, parent: TraceContext | None, *, current: bool) -> None:
        self._parent = parent
        self._current = current
        self._context: TraceContext | None = None

    @property
    def context(self) -> TraceContext:
        if self._context is None:
            self._context = next_hop(self._parent)
        return self._context

    def __enter__(self) -> Self:
        if self._current:
            self._token = _HERE.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._current:
            _HERE.reset(self._token)

    def rename(self, _name: str) -> None:
        """Nobody collects it."""

    def note(self, **_attributes: object) -> None:
        """Nobody collects it."""

    def fail(self, _reason: str) -> None:
        """Nobody collects it."""


class _Nothing:
    """A stage while nothing is collected."""

    __slots__ = ()
    context: TraceContext | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Leave nothing."""

    def rename(self, _name: str) -> None:
        """Nobody collects it."""

    def note(self, **_attributes: object) -> None:
        """Nobody collects it."""

    def fail(self, _reason: str) -> None:
        """Nobody collects it."""


NOTHING: Span = _Nothing()  # where nobody collects, and nothing has to be carried on


class _Switch:
    """Whether spans are collected in this process."""

    recorder: Recorder | None = None


def recording() -> bool:
    """Say whether spans are collected: where preparing one would cost."""
    return _Switch.recorder is not None


@contextmanager
def recorded_by(recorder: Recorder) -> Iterator[None]:
    """Let all spans of this process be collected."""
    _Switch.recorder = recorder
    try:
        yield
    finally:
        _Switch.recorder = None


def hop(
    name: str,
    role: Role,
    *,
    parent: TraceContext | None,
    links: Iterable[TraceContext] = (),
    current: bool = True,
    **attributes: object,
) -> Hop:
    """Begin a hop. `current`: what this task does within it belongs to it.

    The attributes have our names: `type`, `subscription`, `event_id`, `attempt`, …
    """
    if _Switch.recorder is None:
        return _Hop(parent, current=current)
    return _Switch.recorder.start(
        name, role, parent=parent, links=links, current=current, attributes=attributes
    )


def stage(name: str, *, current: bool = True, **attributes: object) -> Span:
    """Begin a part of the hop that this task is in. `current`: what happens within it belongs to it."""
    if _Switch.recorder is None:
        return NOTHING
    return _Switch.recorder.start_part(name, current=current, attributes=attributes)

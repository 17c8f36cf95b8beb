"""Decide which pieces of which sources make up a clip. Pure: same input, same plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from shared.kernel.timeline import TimeRange, uncovered


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """An object that shows a camera for a range of time."""

    key: str
    span: TimeRange
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one source, in UTC."""

    source: SourceSpan
    part: TimeRange


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """The pieces in playing order, each moment once; and what no source shows."""

    pieces: tuple[Piece, ...]
    missing: tuple[TimeRange, ...]

    def in_utc(self, first_ms: int, last_ms: int) -> tuple[TimeRange, ...]:
        """Return when a part of the clip was, in order; the part is counted from the clip's start."""
        moments: list[TimeRange] = []
        shown_ms = 0
        for part in (piece.part for piece in self.pieces):
            start_ms = part.start_ms + max(first_ms - shown_ms, 0)
            end_ms = part.start_ms + min(last_ms - shown_ms, part.duration_ms)
            shown_ms += part.duration_ms
            if start_ms >= end_ms:
                continue
            if moments and moments[-1].end_ms == start_ms:
                start_ms = moments.pop().start_ms
            moments.append(TimeRange(start_ms, end_ms))
        return tuple(moments)


def plan_clip(wanted: TimeRange, recorded: Iterable[SourceSpan]) -> ClipPlan:
    """Cover `wanted` with as few pieces as can be, whatever the order and overlaps of `recorded`.

    There are no pieces when something is missing.
    """
    usable = [source for source in recorded if source.span.overlaps(wanted)]
    missing = uncovered(wanted, (source.span for source in usable))
    if missing:
        return ClipPlan((), missing)

    # One pass over the sources by their start: a day of short ones must not hold up the heartbeat.
    waiting = sorted(usable, key=lambda source: source.span.start_ms, reverse=True)
    longest = waiting[-1]
    pieces: list[Piece] = []
    reached_ms = wanted.start_ms
    while reached_ms < wanted.end_ms:
        while waiting and waiting[-1].span.start_ms <= reached_ms:
            longest = max(longest, waiting.pop(), key=_lasting)
        end_ms = min(longest.span.end_ms, wanted.end_ms)
        pieces.append(Piece(longest, TimeRange(reached_ms, end_ms)))
        reached_ms = end_ms
    return ClipPlan(tuple(pieces), ())


def plan_what_plays(
    wanted: TimeRange, recorded: Iterable[SourceSpan], ends_ms: Mapping[str, int]
) -> ClipPlan:
    """Cover as much of `wanted` as can be when sources end sooner than announced.

    `ends_ms` says when, in UTC, by the source's key; `missing` is what none of them shows then.
    """
    announced = {source.key: source for source in recorded}
    left = [shorter for source in announced.values() for shorter in _up_to(source, ends_ms.get(source.key))]
    missing = uncovered(wanted, (source.span for source in left))
    pieces = tuple(
        replace(piece, source=announced[piece.source.key])
        for part in uncovered(wanted, missing)
        for piece in plan_clip(part, left).pieces
    )
    return ClipPlan(pieces, missing)


def _up_to(source: SourceSpan, end_ms: int | None) -> tuple[SourceSpan, ...]:
    """Return the source as it is when it ends then, or nothing."""
    if end_ms is None or end_ms >= source.span.end_ms:
        return (source,)
    if end_ms <= source.span.start_ms:
        return ()
    return (replace(source, span=TimeRange(source.span.start_ms, end_ms)),)


def _lasting(source: SourceSpan) -> tuple[int, str]:
    """Order sources by their end; the key decides between equals."""
    return source.span.end_ms, source.key

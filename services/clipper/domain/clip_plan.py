"""Decide which pieces of which sources make up a clip. Pure: same input, same plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
    """The pieces in playing order, each moment once; or what no source shows."""

    pieces: tuple[Piece, ...]
    missing: tuple[TimeRange, ...]


def plan_clip(wanted: TimeRange, recorded: Iterable[SourceSpan]) -> ClipPlan:
    """Cover `wanted` with as few pieces as can be, whatever the order and overlaps of `recorded`."""
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


def _lasting(source: SourceSpan) -> tuple[int, str]:
    """Order sources by their end; the key decides between equals."""
    return source.span.end_ms, source.key

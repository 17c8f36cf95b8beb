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

    pieces: list[Piece] = []
    reached_ms = wanted.start_ms
    while reached_ms < wanted.end_ms:
        source = _longest_from(reached_ms, usable)
        end_ms = min(source.span.end_ms, wanted.end_ms)
        pieces.append(Piece(source, TimeRange(reached_ms, end_ms)))
        reached_ms = end_ms
    return ClipPlan(tuple(pieces), ())


def _longest_from(moment_ms: int, sources: Iterable[SourceSpan]) -> SourceSpan:
    """Return the source that shows `moment_ms` and then lasts longest; the key decides between equals."""
    showing = [source for source in sources if source.span.start_ms <= moment_ms < source.span.end_ms]
    return max(showing, key=lambda source: (source.span.end_ms, source.key))

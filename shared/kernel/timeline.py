"""Time as Spool speaks of it: half-open ranges of integer milliseconds UTC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """The milliseconds from `start_ms` on, up to but not including `end_ms`. Never empty."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if self.start_ms >= self.end_ms:
            raise ValueError(f"a range ends after it starts: {self.start_ms} to {self.end_ms}")

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms

    def overlaps(self, other: TimeRange) -> bool:
        return self.start_ms < other.end_ms and other.start_ms < self.end_ms

    def contains(self, other: TimeRange) -> bool:
        return self.start_ms <= other.start_ms and other.end_ms <= self.end_ms

    def __str__(self) -> str:
        return f"{iso_utc(self.start_ms)}/{iso_utc(self.end_ms)}"


def uncovered(wanted: TimeRange, covered: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the parts of `wanted` that no range of `covered` contains, in order."""
    missing: list[TimeRange] = []
    reached_ms = wanted.start_ms
    for piece in sorted(covered):
        if piece.start_ms >= wanted.end_ms:
            break
        if piece.start_ms > reached_ms:
            missing.append(TimeRange(reached_ms, piece.start_ms))
        reached_ms = max(reached_ms, piece.end_ms)
    if reached_ms < wanted.end_ms:
        missing.append(TimeRange(reached_ms, wanted.end_ms))
    return tuple(missing)


def iso_utc(moment_ms: int) -> str:
    """Write a moment as `2026-11-22T18:00:00.000Z`."""
    seconds, milliseconds = divmod(moment_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"

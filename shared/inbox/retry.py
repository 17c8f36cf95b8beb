"""Whether work that failed is tried again, and when. Pure: the caller brings the dice."""

from __future__ import annotations

from dataclasses import dataclass

HOUR_MS = 60 * 60 * 1000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The bounds of trying. Failures run out by count and by age, waits by age alone."""

    attempts: int = 10
    first_delay_ms: int = 1_000
    longest_delay_ms: int = 5 * 60 * 1000
    failing_ms: int = DAY_MS  # since the first failure of a row of failures
    waiting_ms: int = 7 * DAY_MS  # since it came, or since a person replayed it

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.first_delay_ms <= self.longest_delay_ms:
            raise ValueError(f"not a policy: {self}")


@dataclass(frozen=True, slots=True)
class Again:
    """Try once more, not before `delay_ms` from now."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Enough; `reason` says which bound was reached."""

    reason: str


def after_failure(policy: RetryPolicy, *, attempt: int, failing_ms: int, dice: float) -> Again | GiveUp:
    """Decide after attempt number `attempt` (from 1) failed, `failing_ms` after the first failure.

    The delay doubles with each attempt; `dice` (0 to 1) takes away up to half of it, so that what failed
    together does not come back together.
    """
    if attempt >= policy.attempts:
        return GiveUp(f"{attempt} of {policy.attempts} attempts failed")
    # 2**40 ms are 35 years: no bound of ours is larger, and the number stays small.
    delay_ms = min(policy.first_delay_ms * 2 ** min(attempt - 1, 40), policy.longest_delay_ms)
    delay_ms = max(1, round(delay_ms * (1 - dice / 2)))
    if failing_ms + delay_ms > policy.failing_ms:
        return GiveUp(f"failing for {failing_ms} ms; {policy.failing_ms} ms are allowed")
    return Again(delay_ms)


def after_outage(policy: RetryPolicy, *, failing_ms: int, pause_ms: int) -> Again | GiveUp:
    """Decide after a dependency was away: no attempt is counted, and age alone ends it."""
    if failing_ms + pause_ms > policy.failing_ms:
        return GiveUp(f"what it needs is away for {failing_ms} ms; {policy.failing_ms} ms are allowed")
    return Again(pause_ms)

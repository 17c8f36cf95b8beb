"""When work that failed is tried again, and when it is enough."""

from __future__ import annotations

import pytest

from shared.inbox.retry import Again, GiveUp, RetryPolicy, after_failure, after_outage

POLICY = RetryPolicy(attempts=5, first_delay_ms=1_000, longest_delay_ms=6_000, failing_ms=60_000)


@pytest.mark.parametrize(
    ("attempt", "failing_ms", "dice", "decision"),
    [
        pytest.param(1, 0, 0.0, Again(1_000), id="first"),
        pytest.param(2, 0, 0.0, Again(2_000), id="doubles"),
        pytest.param(4, 0, 0.0, Again(6_000), id="never-longer-than-the-longest"),
        pytest.param(1, 0, 1.0, Again(500), id="dice-take-up-to-half"),
        pytest.param(2, 0, 0.5, Again(1_500), id="dice-take-a-part"),
        pytest.param(1, 59_000, 0.0, Again(1_000), id="just-young-enough"),
    ],
)
def test_failed_work_is_tried_again_after_a_while(
    attempt: int, failing_ms: int, dice: float, decision: Again
) -> None:
    assert after_failure(POLICY, attempt=attempt, failing_ms=failing_ms, dice=dice) == decision


@pytest.mark.parametrize(
    ("attempt", "failing_ms", "reason"),
    [
        pytest.param(5, 0, "attempts", id="attempts"),
        pytest.param(6, 0, "attempts", id="more-than-the-attempts"),
        pytest.param(1, 59_001, "failing for", id="age"),
    ],
)
def test_every_bound_ends_it(attempt: int, failing_ms: int, reason: str) -> None:
    decision = after_failure(POLICY, attempt=attempt, failing_ms=failing_ms, dice=0.0)

    assert isinstance(decision, GiveUp)
    assert reason in decision.reason


def test_a_thousandth_attempt_has_a_delay_too() -> None:
    policy = RetryPolicy(attempts=2_000)

    assert after_failure(policy, attempt=1_000, failing_ms=0, dice=0.0) == Again(policy.longest_delay_ms)


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param({"attempts": 0}, id="no-attempt"),
        pytest.param({"first_delay_ms": 0}, id="no-delay"),
        pytest.param({"first_delay_ms": 10, "longest_delay_ms": 5}, id="longest-shorter-than-first"),
    ],
)
def test_a_policy_without_sense_is_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not a policy"):
        RetryPolicy(**bounds)


def test_an_outage_is_waited_for_without_counting_attempts() -> None:
    assert after_outage(POLICY, failing_ms=59_000, pause_ms=1_000) == Again(1_000)


def test_an_outage_is_not_waited_for_for_ever() -> None:
    decision = after_outage(POLICY, failing_ms=59_001, pause_ms=1_000)

    assert isinstance(decision, GiveUp)
    assert "away for 59001 ms" in decision.reason

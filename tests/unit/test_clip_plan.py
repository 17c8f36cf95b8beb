"""The plan of a clip: every millisecond once, from as few pieces as can be, or exactly what is missing."""

from __future__ import annotations

from itertools import combinations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from services.clipper.domain.clip_plan import Piece, SourceSpan, plan_clip
from shared.kernel.timeline import TimeRange, uncovered

ranges = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda pair: TimeRange(pair[0], sum(pair)))
recordings = st.lists(ranges, max_size=6).map(
    lambda spans: [SourceSpan(f"{number}.mp4", span) for number, span in enumerate(spans)]
)

EARLY = SourceSpan("early.mp4", TimeRange(0, 1000))
LATE = SourceSpan("late.mp4", TimeRange(1000, 2000))


def covering_sources(wanted: TimeRange, recorded: list[SourceSpan]) -> int:
    """Count by trial how many sources the wanted range needs at least."""
    for count in range(1, len(recorded) + 1):
        for chosen in combinations(recorded, count):
            if not uncovered(wanted, (source.span for source in chosen)):
                return count
    raise AssertionError("the range is not covered at all")


@settings(deadline=None)
@given(ranges, recordings)
def test_a_plan_covers_all_once_with_the_fewest_pieces_or_says_what_is_missing(
    wanted: TimeRange, recorded: list[SourceSpan]
) -> None:
    plan = plan_clip(wanted, recorded)

    assert plan.missing == uncovered(wanted, (source.span for source in recorded))
    assert bool(plan.pieces) != bool(plan.missing)
    if plan.missing:
        return
    ends = [wanted.start_ms, *(piece.part.end_ms for piece in plan.pieces)]
    assert [piece.part.start_ms for piece in plan.pieces] == ends[:-1]
    assert ends[-1] == wanted.end_ms
    assert all(piece.source.span.contains(piece.part) for piece in plan.pieces)
    assert len(plan.pieces) == covering_sources(wanted, recorded)


@given(recordings, st.randoms(use_true_random=False), ranges)
def test_the_order_of_the_sources_does_not_matter(
    recorded: list[SourceSpan], random: Random, wanted: TimeRange
) -> None:
    shuffled = random.sample(recorded, len(recorded))

    assert plan_clip(wanted, shuffled) == plan_clip(wanted, recorded)


def test_a_clip_over_a_joint_takes_the_end_of_one_source_and_the_start_of_the_next() -> None:
    plan = plan_clip(TimeRange(900, 1100), [LATE, EARLY])

    assert plan.pieces == (Piece(EARLY, TimeRange(900, 1000)), Piece(LATE, TimeRange(1000, 1100)))


def test_overlapping_sources_are_never_played_twice() -> None:
    whole = SourceSpan("whole.mp4", TimeRange(500, 1500))

    plan = plan_clip(TimeRange(500, 1500), [EARLY, LATE, whole])

    assert plan.pieces == (Piece(whole, TimeRange(500, 1500)),)


def test_one_missing_millisecond_between_two_sources_is_told() -> None:
    after_a_gap = SourceSpan("late.mp4", TimeRange(1001, 2000))

    plan = plan_clip(TimeRange(900, 1100), [EARLY, after_a_gap])

    assert (plan.pieces, plan.missing) == ((), (TimeRange(1000, 1001),))

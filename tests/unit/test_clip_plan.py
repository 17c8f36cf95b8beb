"""The plan of a clip: every millisecond once, from as few pieces as can be, or exactly what is missing."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.clipper.domain.clip_plan import ClipPlan, Piece, SourceSpan, plan_clip, plan_what_plays
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


def test_a_source_that_was_cut_off_gives_its_place_to_another() -> None:
    spare = SourceSpan("spare.mp4", TimeRange(700, 900))

    plan = plan_what_plays(TimeRange(100, 1500), [EARLY, LATE, spare], {"early.mp4": 800})

    assert plan.pieces == (
        Piece(EARLY, TimeRange(100, 800)),
        Piece(spare, TimeRange(800, 900)),
        Piece(LATE, TimeRange(1000, 1500)),
    )
    assert plan.missing == (TimeRange(900, 1000),)


def test_a_source_that_ends_before_the_wanted_range_has_no_part_in_it() -> None:
    plan = plan_what_plays(TimeRange(500, 1500), [EARLY, LATE], {"early.mp4": 0, "late.mp4": 1200})

    assert plan.pieces == (Piece(LATE, TimeRange(1000, 1200)),)
    assert plan.missing == (TimeRange(500, 1000), TimeRange(1200, 1500))


@settings(deadline=None)
@given(ranges, recordings, st.dictionaries(st.integers(0, 5), st.integers(0, 40)))
def test_what_plays_and_what_is_missing_are_all_that_was_wanted(
    wanted: TimeRange, recorded: list[SourceSpan], ends: dict[int, int]
) -> None:
    plan = plan_what_plays(wanted, recorded, {f"{number}.mp4": end_ms for number, end_ms in ends.items()})

    parts = [piece.part for piece in plan.pieces]
    assert uncovered(wanted, parts) == plan.missing
    assert sum(part.duration_ms for part in (*parts, *plan.missing)) == wanted.duration_ms
    assert all(piece.source in recorded and piece.source.span.contains(piece.part) for piece in plan.pieces)


@pytest.mark.parametrize(
    ("first_ms", "last_ms", "moments"),
    [
        pytest.param(0, 100, [(100, 200)], id="in the first piece"),
        pytest.param(650, 750, [(750, 800), (1000, 1050)], id="over what is missing"),
        pytest.param(1150, 1250, [(1450, 1550)], id="over a joint without a gap"),
        pytest.param(0, 9999, [(100, 800), (1000, 1600)], id="longer than the clip"),
    ],
)
def test_a_part_of_a_clip_is_told_in_utc(first_ms: int, last_ms: int, moments: list[tuple[int, int]]) -> None:
    latest = SourceSpan("latest.mp4", TimeRange(1500, 2000))
    parts = [TimeRange(100, 800), TimeRange(1000, 1500), TimeRange(1500, 1600)]
    plan = ClipPlan(tuple(map(Piece, (EARLY, LATE, latest), parts)), (TimeRange(800, 1000),))

    assert plan.in_utc(first_ms, last_ms) == tuple(TimeRange(*moment) for moment in moments)


def test_one_missing_millisecond_between_two_sources_is_told() -> None:
    after_a_gap = SourceSpan("late.mp4", TimeRange(1001, 2000))

    plan = plan_clip(TimeRange(900, 1100), [EARLY, after_a_gap])

    assert (plan.pieces, plan.missing) == ((), (TimeRange(1000, 1001),))

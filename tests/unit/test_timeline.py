"""Half-open ranges of milliseconds: what they share, and what is left uncovered."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kernel.timeline import TimeRange, iso_utc, uncovered

# Small numbers make ranges that touch, nest and repeat, and let every millisecond be looked at.
ranges = st.tuples(st.integers(-5, 40), st.integers(1, 15)).map(lambda pair: TimeRange(pair[0], sum(pair)))


def milliseconds(*spans: TimeRange) -> set[int]:
    return {moment for span in spans for moment in range(span.start_ms, span.end_ms)}


@pytest.mark.parametrize(("start_ms", "end_ms"), [(5, 5), (5, 4)])
def test_a_range_is_never_empty(start_ms: int, end_ms: int) -> None:
    with pytest.raises(ValueError, match="ends after it starts"):
        TimeRange(start_ms, end_ms)


@given(ranges, ranges)
def test_two_ranges_agree_with_the_milliseconds_they_stand_for(one: TimeRange, other: TimeRange) -> None:
    shared_ms = milliseconds(one) & milliseconds(other)

    assert one.overlaps(other) == other.overlaps(one) == bool(shared_ms)
    assert one.contains(other) == (milliseconds(other) <= milliseconds(one))
    assert one.duration_ms == len(milliseconds(one))


@settings(deadline=None)
@given(ranges, st.lists(ranges, max_size=8))
def test_uncovered_is_exactly_what_no_range_covers(wanted: TimeRange, covered: list[TimeRange]) -> None:
    missing = uncovered(wanted, covered)

    assert milliseconds(*missing) == milliseconds(wanted) - milliseconds(*covered)
    # In order and as few as can be: two that touched would be one.
    assert all(a.end_ms < b.start_ms for a, b in pairwise(missing))


@pytest.mark.parametrize(
    ("moment_ms", "written"),
    [
        pytest.param(0, "1970-01-01T00:00:00.000Z", id="first"),
        pytest.param(1_795_370_400_007, "2026-11-22T18:00:00.007Z", id="milliseconds with zeros"),
        pytest.param(253_402_300_799_999, "9999-12-31T23:59:59.999Z", id="last"),
    ],
)
def test_a_moment_is_written_in_utc_to_the_millisecond(moment_ms: int, written: str) -> None:
    assert iso_utc(moment_ms) == written


def test_a_range_is_written_as_its_two_ends() -> None:
    assert str(TimeRange(0, 1500)) == "1970-01-01T00:00:00.000Z/1970-01-01T00:00:01.500Z"

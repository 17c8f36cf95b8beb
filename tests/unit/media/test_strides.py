"""What a store may copy by itself is told from what is read together."""

from __future__ import annotations

import pytest

from shared.media.mp4.layout import Fetch, Segment
from shared.media.mp4.streaming import copied_steps, is_copied, strides

MIB = 1 << 20
LONG, SHORT = 6 * MIB, 1000


def fetch(*sizes: int) -> Fetch:
    """Return segments of these sizes with ten unwanted bytes after each."""
    segments, at = [], 0
    for size in sizes:
        segments.append(Segment(at, at + size))
        at += size + 10
    return Fetch(3, tuple(segments))


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        pytest.param([SHORT], [([SHORT], False)], id="short"),
        pytest.param([LONG], [([LONG], True)], id="long"),
        pytest.param([SHORT] * 9000, [([SHORT] * 9000, False)], id="long with gaps"),
        pytest.param([5 * MIB], [([5 * MIB], True)], id="just long enough"),
        pytest.param([5 * MIB - 1], [([5 * MIB - 1], False)], id="just too short"),
        pytest.param(
            [SHORT, SHORT, LONG, LONG, SHORT],
            [([SHORT, SHORT], False), ([LONG], True), ([LONG], True), ([SHORT], False)],
            id="both",
        ),
    ],
)
def test_long_segments_stand_alone(sizes: list[int], wanted: list[tuple[list[int], bool]]) -> None:
    found = list(strides(fetch(*sizes)))

    assert [segment for stride in found for segment in stride.segments] == list(fetch(*sizes).segments)
    assert {stride.piece for stride in found} == {3}
    told = [([part.end - part.start for part in stride.segments], is_copied(stride)) for stride in found]
    assert told == wanted


@pytest.mark.parametrize("size_bytes", [5 * MIB, 64 * MIB, 64 * MIB + 1, 1 << 40])
def test_the_steps_of_a_stride_are_few_and_large_enough(size_bytes: int) -> None:
    steps = list(copied_steps(fetch(size_bytes)))

    assert (steps[0][0], steps[-1][1]) == (0, size_bytes)
    assert sum(end - start for start, end in steps) == size_bytes
    assert len(steps) <= 64
    assert all(end - start >= 5 * MIB for start, end in steps)

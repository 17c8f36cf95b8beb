"""What the demo cuts and how it is drawn, without running it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from shared.kernel.errors import Refused
from shared.kernel.timeline import TimeRange
from shared.media.port import MediaInfo
from spool.camera import Camera, Recording
from spool.demo_page import RULER_COLUMNS, ruler
from spool.footage import Footage, Source, frames_shown, own_file
from spool.proof import Check


def _recordings() -> tuple[Recording, Recording]:
    first = Recording(Path("1.mp4"), range(300), 100_000, 110_000)
    return first, Recording(Path("2.mp4"), range(300, 600), 110_000, 120_000)


@pytest.mark.parametrize(
    ("wanted", "frames"),
    [
        pytest.param(TimeRange(100_000, 120_000), range(600), id="all"),
        pytest.param(TimeRange(109_000, 111_000), range(270, 330), id="across-the-joint"),
        pytest.param(TimeRange(100_001, 100_100), range(1, 3), id="half-open-at-both-ends"),
        pytest.param(TimeRange(110_000, 110_034), range(300, 302), id="from-the-joint-on"),
    ],
)
def test_a_frame_is_expected_when_its_time_lies_in_the_range(wanted: TimeRange, frames: range) -> None:
    assert frames_shown(_recordings(), wanted, Camera(frame_rate=Fraction(30))) == frames


def _info(duration_ms: int) -> MediaInfo:
    return MediaInfo(duration_ms, "mp4", "avc1", None, 640, 360, 1_000)


@pytest.mark.parametrize(
    ("duration_ms", "clip_ms"),
    [
        pytest.param(3_600_000, 20_000, id="an-hour-gives-20-seconds"),
        pytest.param(30_000, 10_000, id="half-a-minute-gives-a-third"),
        pytest.param(100, 33, id="the-shortest-films"),
    ],
)
def test_the_clip_of_an_own_file_is_its_middle(duration_ms: int, clip_ms: int) -> None:
    footage = own_file(Path("a b.MP4"), _info(duration_ms), now_ms=1_700_000_000_500)

    before_ms = footage.wanted.start_ms - footage.sources[0].span.start_ms
    after_ms = footage.sources[0].span.end_ms - footage.wanted.end_ms
    assert footage.wanted.duration_ms == clip_ms
    assert abs(before_ms - after_ms) <= 1
    assert footage.sources[0].span.end_ms <= 1_700_000_000_500
    assert footage.sources[0].key.endswith("/recording.mp4")


def test_a_file_too_short_to_cut_is_refused() -> None:
    with pytest.raises(Refused, match="too short"):
        own_file(Path("x.mp4"), _info(2), now_ms=1_700_000_000_000)


async def _prove(_clip: Path, _told: object) -> tuple[Check, ...]:
    return ()


def test_the_ruler_is_drawn_to_scale() -> None:
    sources = tuple(
        Source(recording.path, "k", TimeRange(recording.start_ms, recording.end_ms))
        for recording in _recordings()
    )
    footage = Footage("camera", sources, TimeRange(105_000, 115_000), _prove)

    recorded, asked = ruler(footage)

    assert len(recorded) == len(asked) == RULER_COLUMNS
    assert (recorded[0], recorded.index("┼"), recorded[-1]) == ("├", (RULER_COLUMNS - 1) // 2, "┤")
    assert asked.count("━") == pytest.approx(RULER_COLUMNS / 2, abs=1)

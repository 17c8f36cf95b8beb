"""Requests that are refused before anything is read, each for one reason, each limit exact."""

from __future__ import annotations

import pytest

from services.clipper.domain.clip_request import MAX_FUTURE_MS, digest_of, refusal_of, wanted_range
from shared.events.clip import ClipRequested
from shared.kernel.timeline import TimeRange

NOW_MS = 1_795_370_400_000
MAX_CLIP_MS = 60_000


def request(
    start_ms: int, end_ms: int, *, clip_id: str = "clip-1", camera_id: str = "cam-1"
) -> ClipRequested:
    return ClipRequested(
        clip_id=clip_id, camera_id=camera_id, start_timestamp_in_ms=start_ms, end_timestamp_in_ms=end_ms
    )


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "reason"),
    [
        pytest.param(NOW_MS - 1000, NOW_MS, None, id="past"),
        pytest.param(0, 1, None, id="shortest"),
        pytest.param(0, MAX_CLIP_MS, None, id="longest"),
        pytest.param(0, MAX_CLIP_MS + 1, "too_long", id="too long"),
        pytest.param(5, 5, "zero_length", id="zero length"),
        pytest.param(5, 4, "end_before_start", id="ends before it starts"),
        pytest.param(NOW_MS + MAX_FUTURE_MS - 1, NOW_MS + MAX_FUTURE_MS, None, id="a day ahead"),
        pytest.param(
            NOW_MS + MAX_FUTURE_MS - 1, NOW_MS + MAX_FUTURE_MS + 1, "in_the_future", id="too far ahead"
        ),
    ],
)
def test_a_request_is_refused_exactly_beyond_its_limits(
    start_ms: int, end_ms: int, reason: str | None
) -> None:
    refusal = refusal_of(request(start_ms, end_ms), now_ms=NOW_MS, max_clip_ms=MAX_CLIP_MS)

    assert (refusal and (refusal.reason, refusal.field)) == (reason and (reason, "endTimestampInMs"))


def test_a_request_wants_the_range_it_names() -> None:
    assert wanted_range(request(10, 20)) == TimeRange(10, 20)


def test_a_digest_tells_camera_and_range_apart_and_nothing_else() -> None:
    asked = [
        request(1, 2),
        request(1, 3),
        request(0, 2),
        request(1, 2, camera_id="cam-2"),
    ]

    assert len({digest_of(one) for one in asked}) == len(asked)
    assert digest_of(request(1, 2, clip_id="another")) == digest_of(request(1, 2))

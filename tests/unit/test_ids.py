"""Ids: fresh ones sort by time, derived ones are the same for ever."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.ids import derived_id, new_id

LAST_MS = (1 << 48) - 1


class ClockAt:
    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._now_ms


@given(st.integers(0, LAST_MS))
def test_a_fresh_id_is_a_uuid_of_version_7_that_holds_its_time(now_ms: int) -> None:
    made = uuid.UUID(new_id(ClockAt(now_ms)))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == now_ms


@given(st.integers(0, LAST_MS - 1), st.data())
def test_fresh_ids_sort_by_the_time_they_were_made(earlier_ms: int, data: st.DataObject) -> None:
    later_ms = data.draw(st.integers(earlier_ms + 1, LAST_MS))

    assert new_id(ClockAt(earlier_ms)) < new_id(ClockAt(later_ms))


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id(ClockAt(0)) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("parts", "known"),
    [
        pytest.param((), "d80cf130-20cc-5b6a-9dd6-9a58b279a512", id="none"),
        pytest.param(("clip_available", "clip-1", "1"), "4b0f81a4-a72b-5907-84f8-c2f187232d47", id="result"),
        pytest.param(("ä", "🎞"), "124cacb8-515d-5409-97b5-de39b60cd8e5", id="beyond ascii"),
    ],
)
def test_a_derived_id_never_changes_between_versions(parts: tuple[str, ...], known: str) -> None:
    assert derived_id(*parts) == known


@given(st.lists(st.text("a1:", max_size=3), max_size=4), st.lists(st.text("a1:", max_size=3), max_size=4))
def test_only_the_same_parts_derive_the_same_id(one: list[str], other: list[str]) -> None:
    assert (derived_id(*one) == derived_id(*other)) == (one == other)

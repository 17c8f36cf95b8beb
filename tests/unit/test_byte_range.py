"""The Range header, compared with a straightforward reading of RFC 9110, section 14."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.runtime.byte_range import Unsatisfiable, requested_range

UNSATISFIABLE = "unsatisfiable"

positions = st.integers(0, 30).map(str) | st.just("") | st.integers(0, 10**18).map(str)
headers = st.builds("bytes={}-{}".format, positions, positions)


def by_the_standard(header: str, size_bytes: int) -> tuple[int, int] | str | None:
    """Return the bytes as the standard's sentences have it, one after the other."""
    first, last = header.removeprefix("bytes=").split("-")
    if not first and not last:
        return None
    if not first:
        wanted = set(range(max(0, size_bytes - int(last)), size_bytes))
        satisfiable = int(last) > 0
    elif last and int(last) < int(first):
        return (
            None  # "A recipient of an int-range with a last-pos less than first-pos MUST treat it as invalid"
        )
    else:
        wanted = {at for at in range(size_bytes) if int(first) <= at and (not last or at <= int(last))}
        satisfiable = int(first) < size_bytes
    if not satisfiable:
        return UNSATISFIABLE
    return (min(wanted), max(wanted) + 1) if wanted else None


@given(headers, st.integers(0, 25))
@example("bytes=-0", 10)
@example("bytes=-5", 0)
@example("bytes=0-", 0)
def test_one_range_is_read_as_the_standard_says(header: str, size_bytes: int) -> None:
    try:
        found: tuple[int, int] | str | None = requested_range(header, size_bytes)
    except Unsatisfiable:
        found = UNSATISFIABLE

    assert found == by_the_standard(header, size_bytes)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        pytest.param("Bytes=0-1", (0, 2), id="units in any case"),
        pytest.param("bytes= 0-1 ", (0, 2), id="space around"),
        pytest.param("bytes=0-9999999999999999999", (0, 100), id="end far outside"),
    ],
)
def test_a_range_may_be_written_in_other_ways(header: str, found: tuple[int, int]) -> None:
    assert requested_range(header, 100) == found


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=0",
        "bytes=0-1,3-4",
        "bytes=1 2-34",
        "bytes=0-1\n",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=0x0-1",
        "bytes=\N{ARABIC-INDIC DIGIT ZERO}-\N{ARABIC-INDIC DIGIT ONE}",
        "bytes=0-1-2",
        "bytes=99999999999999999999-",
        "items=0-1",
    ],
)
def test_a_header_of_another_form_asks_for_everything(header: str | None) -> None:
    assert requested_range(header, 100) is None


@given(st.text("bytes=0123456789-, \t", max_size=20), st.integers(0, 50))
def test_any_text_gives_bytes_that_are_there_or_none(header: str, size_bytes: int) -> None:
    try:
        found = requested_range(header, size_bytes)
    except Unsatisfiable:
        return

    assert found is None or 0 <= found[0] < found[1] <= size_bytes

"""Times and sizes as people type and read them."""

from __future__ import annotations

import pytest

from spool.times import clock_text, parse_time, size_text


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        pytest.param("00:00:10", 10_000, id="hours-minutes-seconds"),
        pytest.param("01:02:03.004", 3_723_004, id="with-milliseconds"),
        pytest.param("00:00:10.5", 10_500, id="a-tenth"),
        pytest.param("1:30", 90_000, id="minutes-and-seconds"),
        pytest.param("90:00", 5_400_000, id="more-than-an-hour-in-minutes"),
        pytest.param("0", 0, id="the-start"),
        pytest.param("12.25", 12_250, id="seconds"),
        pytest.param("1m30s", 90_000, id="units"),
        pytest.param("1h2m3.5s", 3_723_500, id="all-units"),
        pytest.param("500ms", 500, id="milliseconds"),
        pytest.param("2m", 120_000, id="only-minutes"),
        pytest.param(" 7 ", 7_000, id="blanks-around"),
    ],
)
def test_a_time_is_read_in_every_form_that_people_type(text: str, moment_ms: int) -> None:
    assert parse_time(text) == moment_ms


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("soon", id="a-word"),
        pytest.param("-5", id="negative"),
        pytest.param("10:75", id="seconds-beyond-59"),
        pytest.param("1:75:00", id="minutes-beyond-59"),
        pytest.param("1.0005", id="finer-than-milliseconds"),
        pytest.param("1e3", id="exponent"),
        pytest.param("30s1m", id="units-in-the-wrong-order"),
        pytest.param("٣", id="digits-of-another-script"),
        pytest.param("1:2:3:4", id="four-parts"),
        pytest.param("nan", id="not-a-number"),
    ],
)
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(text)


@pytest.mark.parametrize("moment_ms", [0, 1, 999, 59_999, 3_599_999, 3_600_000, 359_999_999])
def test_a_written_time_is_read_as_the_same_time(moment_ms: int) -> None:
    assert parse_time(clock_text(moment_ms)) == moment_ms


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (5_040_000, "5.0 MB"), (7 * 10**12, "7.0 TB")],
)
def test_a_size_is_written_with_its_unit(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text

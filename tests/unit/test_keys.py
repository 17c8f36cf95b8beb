"""Keys of objects: what every store can hold under exactly this name, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.keys import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, check_key


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "cam-1/2026/11/22/180000.mp4",
        "with space/Größe=1&b;c'd\"e.mp4",
        "...",
        ".hidden/a..b",
        "a.spool",
        "🎞" * 63,
        "a" * MAX_SEGMENT_BYTES,
        "/".join(["a" * 204] * 5),  # MAX_KEY_BYTES
    ],
)
def test_a_key_that_every_store_can_hold_is_left_as_it_is(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    ("key", "words"),
    [
        pytest.param("", "not empty", id="empty"),
        pytest.param("../../etc/passwd", "segment", id="upwards"),
        pytest.param("a/../b", "segment", id="upwards within"),
        pytest.param("a/..", "segment", id="upwards at the end"),
        pytest.param("./a", "segment", id="here"),
        pytest.param("/etc/passwd", "starts without", id="absolute"),
        pytest.param("a//b", "segment", id="empty segment"),
        pytest.param("a/", "segment", id="slash at the end"),
        pytest.param("a\\..\\b", "backslash", id="backslash"),
        pytest.param("a\x00.mp4", "control", id="nul"),
        pytest.param("a\nb", "control", id="line break"),
        pytest.param("a\x7f", "control", id="delete"),
        pytest.param("a/.spool-drafts/b", "own", id="ours"),
        pytest.param("a\ud800", "Unicode", id="half a surrogate pair"),
        pytest.param("a" * (MAX_SEGMENT_BYTES + 1), "segment", id="long segment"),
        pytest.param("🎞" * 64, "segment", id="long in bytes, not in characters"),
        pytest.param("a/" * 512 + "a", f"{MAX_KEY_BYTES} bytes", id="long"),
    ],
)
def test_a_key_that_some_store_would_hold_elsewhere_is_refused(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_key(key)


@given(st.text(st.characters() | st.sampled_from("/.\\"), max_size=40))
def test_any_text_is_a_safe_key_or_refused_with_a_reason(text: str) -> None:
    try:
        key = check_key(text)
    except UnicodeError:
        raise
    except ValueError:
        return

    assert key == text
    assert key.encode().decode() == text
    assert not {"", ".", ".."} & set(key.split("/"))

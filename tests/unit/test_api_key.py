"""Keys of the HTTP API: made once, kept for their owner, compared whole."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.kernel.errors import Refused
from shared.runtime.api_key import KeyRing, keep_key, key_file, shown_key

KEY = "a-long-random-key"


def basic(credentials: bytes) -> bytes:
    return b"Basic " + base64.b64encode(credentials)


def test_the_first_start_makes_a_key_and_the_next_ones_find_it(tmp_path: Path) -> None:
    key, made = keep_key(tmp_path / "data")
    again, made_again = keep_key(tmp_path / "data")

    assert (made, made_again) == (True, False)
    assert again == key
    assert len(key) >= 40
    assert key.isascii()


def test_only_the_owner_can_read_a_key_that_was_made(tmp_path: Path) -> None:
    keep_key(tmp_path)

    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["api-key"]


def test_starters_at_the_same_time_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(keep_key, [tmp_path] * 32))

    assert len({key for key, _ in kept}) == 1
    assert sum(made for _, made in kept) == 1


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40])
def test_a_file_without_a_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    key_file(tmp_path).write_bytes(content)

    with pytest.raises(Refused, match="holds no key"):
        keep_key(tmp_path)

    assert key_file(tmp_path).read_bytes() == content


@pytest.mark.parametrize(
    ("shown", "accepted"),
    [
        (KEY, True),
        ("another-long-one", True),
        (KEY + "x", False),
        (KEY[:-1], False),
        (KEY.upper(), False),
        ("", False),
        ("é" * 20, False),
    ],
)
def test_a_ring_accepts_exactly_its_keys(shown: str, accepted: bool) -> None:
    assert KeyRing((KEY, "another-long-one")).accepts(shown) is accepted


def test_a_ring_without_keys_accepts_nothing() -> None:
    assert not KeyRing(()).accepts("")


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({b"x-api-key": KEY.encode()}, KEY, id="header"),
        pytest.param({b"x-api-key": b"\xff"}, "ÿ", id="any byte"),
        pytest.param({b"authorization": basic(b"anyone:" + KEY.encode())}, KEY, id="password"),
        pytest.param({b"authorization": basic(b":a:b")}, "a:b", id="colon in the password"),
        pytest.param({b"authorization": b"bAsIc " + basic(b"a:b")[6:]}, "b", id="scheme in any case"),
        pytest.param({b"authorization": basic(b"no colon")}, "", id="no password"),
        pytest.param({b"authorization": b"Bearer " + KEY.encode()}, None, id="another scheme"),
        pytest.param({b"authorization": b"Basic \xff!"}, None, id="not base64"),
        pytest.param({b"x-api-key": b"one", b"authorization": basic(b"a:two")}, "one", id="header first"),
    ],
)
def test_a_key_is_shown_in_a_header_or_as_a_password(headers: dict[bytes, bytes], shown: str | None) -> None:
    assert shown_key(headers) == shown

"""A signed URL opens exactly what it was signed for, until it expires."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from shared.storage.signature import sign, signed_url, verify_signature

KEY = b"a key that only the server knows"
GOOD = sign("clips/a b.mp4", 1000, KEY)


def test_a_signed_url_carries_what_is_verified() -> None:
    url = signed_url("https://spool.test/", "clips/a b?&.mp4", expires_ms=1000, signing_key=KEY)

    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    key = unquote(parts.path).removeprefix("/media/")
    assert (parts.netloc, key) == ("spool.test", "clips/a b?&.mp4")
    assert verify_signature(key, int(query["expires"]), query["signature"], KEY, now_ms=999)


@pytest.mark.parametrize(
    ("key", "expires_ms", "signature", "signing_key", "now_ms"),
    [
        pytest.param("clips/other", 1000, GOOD, KEY, 999, id="another key"),
        pytest.param("clips/a b.mp4", 2000, GOOD, KEY, 999, id="a later expiry"),
        pytest.param("clips/a b.mp4", 1000, GOOD, KEY, 1000, id="expired"),
        pytest.param("clips/a b.mp4", 1000, GOOD, b"guess", 999, id="another secret"),
        pytest.param("clips/a b.mp4", 1000, GOOD[:-1] + "é", KEY, 999, id="not ASCII"),
        pytest.param("clips/a b.mp4", 1000, "", KEY, 999, id="empty"),
    ],
)
def test_a_url_that_was_not_signed_so_is_refused(
    key: str, expires_ms: int, signature: str, signing_key: bytes, now_ms: int
) -> None:
    assert not verify_signature(key, expires_ms, signature, signing_key, now_ms)

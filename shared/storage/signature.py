"""URLs by which a file store lends an object to whoever holds them. Pure: the clock is the caller's."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, urlencode


def signed_url(public_url: str, key: str, *, expires_ms: int, signing_key: bytes) -> str:
    """Return `{public_url}/media/{key}?expires=…&signature=…`; `expires` is a moment in milliseconds UTC."""
    query = urlencode({"expires": expires_ms, "signature": sign(key, expires_ms, signing_key)})
    return f"{public_url.rstrip('/')}/media/{quote(key)}?{query}"


def sign(key: str, expires_ms: int, signing_key: bytes) -> str:
    """Return the HMAC-SHA256 of key and expiry in hex. It holds for GET and HEAD, and for every Range."""
    # The first line keeps the signature from meaning anything elsewhere that the key is used.
    message = f"spool-media\n{expires_ms}\n{key}".encode()
    return hmac.new(signing_key, message, hashlib.sha256).hexdigest()


def verify_signature(key: str, expires_ms: int, signature: str, signing_key: bytes, now_ms: int) -> bool:
    """Say whether `signature` was given for exactly this key and expiry, and has not run out."""
    expected = sign(key, expires_ms, signing_key)
    # Compared as bytes: `compare_digest` refuses text that is not ASCII, which a stranger may send.
    genuine = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass"))
    return genuine and now_ms < expires_ms

"""The keys that callers of the HTTP API have to show."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from shared.kernel.errors import Refused

KEY_BYTES = 32


def key_file(data_directory: Path) -> Path:
    return data_directory / "api-key"


def keep_key(data_directory: Path) -> tuple[str, bool]:
    """Return the key of a data directory, and whether it was made just now. Only its owner can read it."""
    path = key_file(data_directory)
    data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Not named by the process: two containers on one volume have the same number.
    descriptor, staged = tempfile.mkstemp(dir=data_directory, prefix=".api-key.")
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(staged, path)  # whole or not at all, and the first of two starters wins
        made = True
    except FileExistsError:
        made = False
    finally:
        Path(staged).unlink()
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)  # restored from a backup, or written by hand
    key = path.read_text(errors="replace").strip()
    if len(key) < 16 or not key.isascii():
        raise Refused(f"{path} holds no key", hint="remove the file: the next start makes a new one")
    return key, made


class KeyRing:
    """The accepted keys. Comparing takes the same time whatever is wrong."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def accepts(self, shown: str) -> bool:
        digest = hashlib.sha256(shown.encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def shown_key(headers: dict[bytes, bytes]) -> str | None:
    """Return the key of a request: `x-api-key`, or the password of Basic, by which a browser can show one."""
    if b"x-api-key" in headers:
        return headers[b"x-api-key"].decode("latin-1")
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(credentials, validate=True).decode("latin-1")
    except binascii.Error:
        return None
    return decoded.partition(":")[2]

"""Put the head of a file before bytes that are written already, with nothing beside the file."""

from __future__ import annotations

import hashlib
import os

_STEP_BYTES = 1 << 20


def put_first(descriptor: int, head: bytes) -> str:
    """Move all bytes of a file on, write `head` before them, and return the SHA-256 of the whole in hex.

    Blocks. The descriptor is open for reading and writing. A file left in the middle of it is useless.
    """
    size_bytes = os.fstat(descriptor).st_size
    # From the end, so that nothing is written over that is still to be moved.
    for start in reversed(range(0, size_bytes, _STEP_BYTES)):
        _write(
            descriptor, os.pread(descriptor, min(_STEP_BYTES, size_bytes - start), start), start + len(head)
        )
    _write(descriptor, head, 0)

    digest = hashlib.sha256()
    for start in range(0, size_bytes + len(head), _STEP_BYTES):
        digest.update(os.pread(descriptor, _STEP_BYTES, start))
    return digest.hexdigest()


def _write(descriptor: int, chunk: bytes, at: int) -> None:
    rest = memoryview(chunk)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest, at = rest[written:], at + written

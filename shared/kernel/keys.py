"""What may be a key of a stored object. Checked before any store sees it."""

from __future__ import annotations

MAX_KEY_BYTES = 1024  # S3's own limit
MAX_SEGMENT_BYTES = 255  # a file name on every common file system


def check_key(key: str) -> str:
    """Return `key` if every store can hold it under exactly this name; else raise ValueError.

    Servers disagree about `a//b` and `a/../b` (some overwrite `a/b` and `b`), and a file store
    would leave its directory, so such keys are refused everywhere.
    """
    if not key:
        raise ValueError("a key is not empty")
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes")
    if any(ord(character) < 32 or ord(character) == 127 or character == "\\" for character in key):
        raise ValueError("a key has no control characters and no backslash")
    for segment in key.split("/"):
        _check_segment(segment)
    return key


def _check_segment(segment: str) -> None:
    if segment in ("", ".", ".."):
        raise ValueError("a key has no empty, '.' or '..' segment, and starts without '/'")
    if segment.startswith(".spool"):
        raise ValueError("segments that start with '.spool' are Spool's own")
    try:
        size_bytes = len(segment.encode())
    except UnicodeEncodeError:
        raise ValueError("a key is valid Unicode") from None
    if size_bytes > MAX_SEGMENT_BYTES:
        raise ValueError(f"a segment of a key has at most {MAX_SEGMENT_BYTES} bytes")

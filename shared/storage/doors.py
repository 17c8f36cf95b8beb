"""What every store checks before it acts: the same things are refused everywhere, in the same words."""

from __future__ import annotations

import re

from shared.kernel.errors import Bug, Corrupt, Refused
from shared.kernel.keys import check_key
from shared.storage.port import StoredObject, WriteOptions

CHUNK_BYTES = 1 << 20  # what a reader hands out at most: the port's promise
MAX_METADATA_BYTES = 2048  # S3's own limit for all names and values together
MAX_PRESIGN_S = 7 * 24 * 3600  # SigV4 signs for a week at most

SHA256_NAME = "sha256"  # the metadata under which a store keeps the digest, where it knows it in time
UPLOAD_NAME = "spool-upload"  # the metadata by which a writer recognises its own object
RECOVERED_NAME = "spool-recovered"  # the metadata of what a dead writer left, with this value
RECOVERED = "true"
_RESERVED = frozenset({SHA256_NAME, UPLOAD_NAME, RECOVERED_NAME})
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z")


def admit_key(key: str) -> str:
    """Return `key`, or raise Refused with the reason."""
    try:
        return check_key(key)
    except ValueError as error:
        raise Refused(str(error), field="key") from error


def admit_range(start: int, end: int | None) -> None:
    """Raise Refused unless `start` and `end` are a half-open range of bytes. It may be empty."""
    if start < 0:
        raise Refused("a range of bytes starts at 0 or later", field="start")
    if end is not None and end < start:
        raise Refused("a range of bytes ends where it starts, or later", field="end")


def admit_copy(source: StoredObject, start: int, end: int) -> None:
    """Raise Refused unless this is a range of bytes, Corrupt unless the object has them."""
    admit_range(start, end)
    if end > source.size_bytes:
        raise Corrupt(f"{source.key} ends at byte {source.size_bytes}, before byte {end}")


def admit_head(options: WriteOptions, head: bytes | None) -> None:
    """Raise Bug unless the head of an object comes exactly when it was announced, and once.

    `head` is the one that was given before.
    """
    if not options.head_last:
        raise Bug("a head comes last only where the options say so")
    if head is not None:
        raise Bug("an object has one head")


def admit_expiry(expires_s: int) -> None:
    """Raise Refused unless a URL can be signed for so long."""
    if not 0 < expires_s <= MAX_PRESIGN_S:
        raise Refused(f"a signed URL is good for 1 to {MAX_PRESIGN_S} seconds", field="expires_s")


def admit_options(options: WriteOptions) -> None:
    """Raise Refused when a store could not keep what the options say."""
    if options.if_absent and options.if_match is not None:
        raise Refused("a write has one condition at most", field="if_match")
    if options.is_capture and options.head_last:
        raise Refused("what plays only with its head is no capture", field="is_capture")
    for name, value in options.metadata.items():
        if not _METADATA_NAME.match(name) or name in _RESERVED:
            raise Refused("a name of metadata is of a-z, 0-9 and '-'; some are Spool's own", field="metadata")
        # S3 carries metadata in HTTP headers.
        if not (value.isascii() and value.isprintable()):
            raise Refused("a value of metadata is printable ASCII", field="metadata")
    if sum(len(name) + len(value) for name, value in options.metadata.items()) > MAX_METADATA_BYTES:
        raise Refused(f"metadata has at most {MAX_METADATA_BYTES} bytes", field="metadata")

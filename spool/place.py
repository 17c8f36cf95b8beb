"""Where a file of `spool clip` is: a path, or `s3://bucket/key`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from shared.kernel.errors import Refused
from shared.kernel.keys import check_key

SCHEME = "s3://"


@dataclass(frozen=True, slots=True)
class S3Place:
    """An object in a bucket: `store` is the bucket's address as SPOOL_STORAGE would have it."""

    text: str
    store: str
    key: str

    def __str__(self) -> str:
        return self.text


Place: TypeAlias = Path | S3Place


def read_place(text: str) -> Place:
    """Read `my.mp4`, `/a/b.mp4` or `s3://bucket/a/b.mp4?endpoint=http://host:9000&region=eu-west-1`.

    Raises Refused for an address that names no object.
    """
    if text == "-":
        raise Refused(
            "an MP4 cannot be piped: its index is looked up and written last", hint="give a file name"
        )
    if not text.startswith(SCHEME):
        if "://" in text and not Path(text).exists():
            raise Refused(f"{text} is neither a file nor s3://bucket/key", hint="fetch it first")
        return Path(text)
    parts = urlsplit(text)
    key = unquote(parts.path.removeprefix("/"))
    shown = f"{SCHEME}{parts.netloc}/{key}"
    if not parts.netloc or not key:
        raise Refused(f"{shown} names no object", hint="write s3://bucket/key")
    try:
        check_key(key)
    except ValueError as error:
        raise Refused(f"{shown}: {error}") from error
    store = f"{SCHEME}{parts.netloc}" + (f"?{parts.query}" if parts.query else "")
    return S3Place(shown, store, key)

"""What the name of a recorded object says: which camera, and when it starts in UTC.

`<camera>.stream.YYYYmmddTHHMMSSmmm.mp4`, and the older `<camera>.YYYYmmddTHHMMSS.mp4`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_NAME = re.compile(
    r"(?P<camera>[^/]+?)(?:\.stream)?\.(?P<second>[0-9]{8}T[0-9]{6})(?P<millisecond>[0-9]{3})?\.mp4"
)
EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class NamedSource:
    """What a name tells of a source."""

    camera_id: str
    start_ms: int


def named_source(key: str) -> NamedSource | None:
    """Return what the last segment of a key tells; None when it is no name of either form, or no time."""
    found = _NAME.fullmatch(key.rsplit("/", 1)[-1])
    if found is None:
        return None
    try:
        second = datetime.strptime(found["second"] + "+0000", "%Y%m%dT%H%M%S%z")
    except ValueError:
        return None
    start_ms = (second - EPOCH).days * 86_400_000 + (second - EPOCH).seconds * 1000
    return NamedSource(found["camera"], start_ms + int(found["millisecond"] or 0))

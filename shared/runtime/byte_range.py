"""The Range header of HTTP, one range. Pure.

Source: RFC 9110, section 14.
"""

from __future__ import annotations

import re

from shared.kernel.errors import Refused

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)


class Unsatisfiable(Refused):
    """A range that lies wholly outside the object."""


def requested_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return [start, end) of the one range that `header` asks for, or None for the whole object.

    Takes `a-b`, `a-` and `-n`. A header in another unit or form, or with several ranges, is ignored, as
    the standard allows. Raises Unsatisfiable, for an answer of 416.
    """
    found = _RANGE.fullmatch(header or "")
    if not found or found[1] == found[2] == "":
        return None
    first, last = found[1], found[2]
    if first == "" and size_bytes == 0 and int(last) > 0:
        return None  # the last bytes of nothing are all there are, and no Content-Range can say so
    if first == "":
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start = int(first)
        end = min(size_bytes, int(last) + 1) if last else size_bytes
        if last and int(last) < start:
            return None  # not a range at all
    if start >= end:
        raise Unsatisfiable(f"the object has {size_bytes} bytes", field="Range")
    return start, end

"""Times as people type them, read into whole milliseconds, and written back."""

from __future__ import annotations

import re
from datetime import timedelta

_CLOCK = re.compile(r"(?:(?P<h>\d{1,3}):)?(?P<m>\d{1,4}):(?P<s>\d{1,2})(?:\.(?P<f>\d{1,3}))?", re.ASCII)
_PLAIN = re.compile(r"(?P<s>\d{1,7})(?:\.(?P<f>\d{1,3}))?", re.ASCII)
_UNITS = re.compile(
    r"(?:(?P<h>\d{1,3})h)?(?:(?P<m>\d{1,5})m)?(?:(?P<s>\d{1,7})(?:\.(?P<f>\d{1,3}))?s)?(?:(?P<ms>\d{1,10})ms)?",
    re.ASCII,
)

FORMS = "HH:MM:SS.mmm, MM:SS, seconds such as 12.5, or 1m30s"


def parse_time(text: str) -> int:
    """Return the milliseconds of `00:01:30.500`, `1:30`, `90`, `90.5`, `1m30s` or `500ms`.

    Raises ValueError, whose text says what would be a time.
    """
    text = text.strip()
    match = _CLOCK.fullmatch(text) or _PLAIN.fullmatch(text) or (_UNITS.fullmatch(text) if text else None)
    if match is None:
        raise ValueError(f"{text!r} is not a time; write {FORMS}")
    parts = match.groupdict()
    hours, minutes, seconds = (int(parts.get(name) or 0) for name in "hms")
    if match.re is _CLOCK and (seconds >= 60 or (parts["h"] is not None and minutes >= 60)):
        raise ValueError(f"{text!r} is not a time: minutes and seconds go up to 59")
    milliseconds = int((parts.get("f") or "").ljust(3, "0")) + int(parts.get("ms") or 0)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


def clock_text(moment_ms: int) -> str:
    """Write milliseconds as `00:01:30.500`."""
    seconds, milliseconds = divmod(moment_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"


def size_text(size_bytes: int) -> str:
    """Write bytes as people read them: `5.0 MB`."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


_AGE = re.compile(
    r"(?:(?P<w>\d{1,3})w)?(?:(?P<d>\d{1,4})d)?(?:(?P<h>\d{1,4})h)?(?:(?P<m>\d{1,5})m)?(?:(?P<s>\d{1,7})s)?",
    re.ASCII,
)
_AGE_SECONDS = {"w": 7 * 86_400, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse_age(text: str) -> int:
    """Return the seconds of `90s`, `15m`, `2h`, `1d12h` or `2w`.

    Raises ValueError, whose text says what would be an age.
    """
    match = _AGE.fullmatch(text.strip()) if text.strip() else None
    if match is None:
        raise ValueError(f"{text!r} is not an age; write 90s, 15m, 2h, 1d12h or 2w")
    return sum(int(count) * _AGE_SECONDS[unit] for unit, count in match.groupdict().items() if count)


def span_text(span: timedelta) -> str:
    """Write how long something takes as people say it: `0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `4 days`."""
    seconds = span.total_seconds()
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(seconds / 86_400)} days"

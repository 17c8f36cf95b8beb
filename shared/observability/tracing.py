"""W3C trace context: read, continued and passed on.

Source: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
import secrets

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(traceparent: str | None) -> str | None:
    """Return the 32 hex digits that all hops of one story share, or None when there are none."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else None


def next_hop(traceparent: str | None) -> str:
    """Return the header for what follows: the same trace with a span of its own, or a new trace."""
    trace = trace_id(traceparent) or secrets.token_hex(16)
    return f"00-{trace}-{secrets.token_hex(8)}-01"

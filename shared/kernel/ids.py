"""Names that Spool gives: sortable by time, or derived so that doing it twice names it once."""

from __future__ import annotations

import secrets
import uuid

from shared.kernel.clock import Clock

# Fixed for ever: a derived id must be the same in every version of Spool.
_DERIVED = uuid.UUID("4be0643f-1d98-573b-97cd-ca98a65347dd")


def new_id(clock: Clock) -> str:
    """Return a fresh UUIDv7: 48 bits of milliseconds first, so ids sort by the time they were made."""
    value = (clock.now_ms() & (1 << 48) - 1) << 80
    value |= 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def derived_id(*parts: str) -> str:
    """Return the same UUIDv5 for the same parts, on every machine and in every attempt."""
    # A length before each part keeps ("a", "bc") and ("ab", "c") apart.
    return str(uuid.uuid5(_DERIVED, "".join(f"{len(part)}:{part}" for part in parts)))

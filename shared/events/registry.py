"""Every type of event that Spool understands, and how bytes become one of them."""

from __future__ import annotations

from shared.events.clip import (
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipRefused,
    ClipRequested,
)
from shared.events.envelope import EventData
from shared.events.source import SourceAvailable

TYPES: dict[str, type[EventData]] = {
    data_type.type: data_type
    for data_type in (
        SourceAvailable,
        ClipRequested,
        ClipAvailable,
        ClipNotAvailable,
        ClipRefused,
        ClipFailed,
    )
}

"""What every process does by the clock, whatever its services: tables stay bounded."""

from __future__ import annotations

from functools import partial

from shared.database.engine import Database
from shared.inbox import listing
from shared.outbox import reading
from shared.runtime.scheduler import Tick

PURGE_EVERY_S = 300
HOUR_MS = 3_600_000


def housekeeping(database: Database, *, keep_hours: int) -> tuple[Tick, ...]:
    """Return the ticks that drop what is done and told, `keep_hours` after it was."""
    purge = partial(_purge, database, keep_ms=keep_hours * HOUR_MS)
    return (Tick(task="house.purge", every_s=PURGE_EVERY_S, run=purge),)


async def _purge(database: Database, *, keep_ms: int) -> None:
    before_ms = await database.now_ms() - keep_ms
    await listing.purge(database, before_ms)
    await reading.purge(database, before_ms)
    await reading.purge_subjects(database, before_ms)

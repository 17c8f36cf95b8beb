"""What the clipper does by the clock: it removes what died half-written."""

from __future__ import annotations

import structlog

from services.clipper.settings import ClipperSettings
from shared.observability.metrics import UPLOADS_ORPHANED, UPLOADS_RECOVERED, UPLOADS_SWEPT
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage
from shared.storage.sweeping import sweep

SWEEP_EVERY_S = 60
GRACE_MS = 60_000  # after a claim's end: its worker stops before its lease does, and then some
UNKNOWN_AGE_MS = (
    24 * 60 * 60 * 1000
)  # an upload no journal knows may be another installation's, and under way

log = structlog.get_logger()


async def sweep_uploads(*, storage: Storage, uploads: UploadJournal, settings: ClipperSettings) -> None:
    """Abort uploads of clips whose claim is dead: they are made again under the same key."""
    swept = await sweep(
        storage,
        uploads,
        prefixes=(settings.key_prefix,),
        grace_ms=GRACE_MS,
        unknown_age_ms=UNKNOWN_AGE_MS,
    )
    UPLOADS_ORPHANED.set(swept.orphans)
    UPLOADS_RECOVERED.inc(swept.recovered)
    UPLOADS_SWEPT.inc(swept.aborted)
    if swept.aborted or swept.recovered:
        log.warning("uploads.swept", aborted=swept.aborted, recovered=swept.recovered)

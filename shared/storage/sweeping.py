"""The sweeper of uploads that nobody will finish: it aborts what is derived, and completes captures.

No upload whose claim lives is touched; `multipart.py` says in which order one has to look for that to hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import structlog

from shared.kernel.errors import NotFound, Permanent, words_of
from shared.storage.multipart import JournalledUpload, Owner, UploadJournal
from shared.storage.port import Storage, UnfinishedUpload, UploadedPart

log = structlog.get_logger()


class Ending(Enum):
    """What became of an upload."""

    ABORTED = "aborted"
    RECOVERED = "recovered"
    ENDED = "it had ended already"


@dataclass(slots=True)
class Swept:
    """What a sweep did, and what it left."""

    aborted: int = 0
    recovered: int = 0
    orphans: int = 0  # whose claim is not alive, and that are there still: too young, or refused

    def count(self, ending: Ending) -> None:
        self.aborted += ending is Ending.ABORTED
        self.recovered += ending is Ending.RECOVERED


async def abort_abandoned(storage: Storage, journal: UploadJournal, *, key: str, owner: Owner | None) -> None:
    """Abort what earlier claims left under `key`, before its next writer begins.

    Captures are the sweeper's. Raises Unavailable when the store or the database does not answer.
    """
    rows = [row for row in await journal.rows(key) if row.owner != owner]
    alive = await journal.living({row.owner for row in rows if row.owner})
    # A row without an owner is nobody's: only its age can tell, which is the sweeper's business.
    dead = [
        row
        for row in rows
        if row.owner and not row.is_capture and (_supersedes(owner, row.owner) or row.owner not in alive)
    ]
    await _end_all(storage, journal, dead, Swept())


async def sweep(
    storage: Storage,
    journal: UploadJournal,
    *,
    prefixes: Sequence[str],
    grace_ms: int,
    unknown_age_ms: int,
    captures: bool = False,
) -> Swept:
    """End the uploads below `prefixes` that nobody will finish, and return what became of them.

    Those that the journal knows go once their claim has been dead for `grace_ms`. Those that it does not know
    (a store without a journal, an answer that was lost) go once they are `unknown_age_ms` old, as `captures`
    or as what is made again. Raises Unavailable.
    """
    below = tuple(prefixes)
    now_ms = await journal.now_ms()
    listed = {upload for prefix in below for upload in await storage.unfinished(prefix)}
    rows = [row for row in await journal.rows() if row.key.startswith(below)]  # after the listing
    dead = [row for row in await journal.abandoned(grace_ms=grace_ms) if row.key.startswith(below)]
    dead += [row for row in rows if row.owner is None and row.started_ms <= now_ms - unknown_age_ms]
    swept = Swept()
    await _end_all(storage, journal, dead, swept)

    known_ids = {row.upload_id for row in rows}
    intended_keys = {row.key for row in rows if row.upload_id is None}
    owners = {upload.owner for upload in listed if upload.owner} | {row.owner for row in rows if row.owner}
    alive = await journal.living(owners, grace_ms=grace_ms)
    unknown = [
        upload for upload in listed if upload.upload_id not in known_ids and upload.key not in intended_keys
    ]
    for upload in unknown:
        old_ms = grace_ms if upload.owner else unknown_age_ms
        is_dead = upload.owner not in alive and upload.started_ms <= now_ms - old_ms
        is_capture = captures if upload.is_capture is None else upload.is_capture
        if is_dead and await _end_unknown(storage, upload, swept, is_capture=is_capture):
            continue
        swept.orphans += upload.owner not in alive
    left = [row for row in await journal.rows() if row.key.startswith(below) and row.owner not in alive]
    swept.orphans += sum(
        row.owner in owners or row.owner is None for row in left
    )  # what has begun since lives
    await journal.purge()
    return swept


async def _end_all(
    storage: Storage, journal: UploadJournal, dead: Sequence[JournalledUpload], swept: Swept
) -> None:
    """End what dead rows stand for, and forget them."""
    dead_ids = {row.row_id for row in dead}
    for row in dead:
        if row.is_capture and row.upload_id:
            await _recover(storage, journal, row, row.found_as(row.upload_id), swept)
            continue
        uploads = (
            {row.found_as(row.upload_id)}
            if row.upload_id
            else await _intended(storage, journal, row, dead_ids)
        )
        if uploads is None:
            continue
        for upload in uploads:  # before its id was written down there was no part
            await _abort(storage, upload)
        swept.aborted += len(uploads)
        await journal.forget(row.row_id)


async def _recover(
    storage: Storage, journal: UploadJournal, row: JournalledUpload, upload: UnfinishedUpload, swept: Swept
) -> None:
    """Complete a capture of the journal. Each step may be this process's last; the next sweep goes on."""
    if row.recovering_ms is None:
        await journal.recovering(row.row_id)
    parts = await journal.parts(row.row_id)
    try:
        ending = await complete(storage, upload, parts, resumed=row.recovering_ms is not None)
    except Permanent as error:
        _left(upload, error)
        return
    swept.count(ending)
    if ending is Ending.RECOVERED:
        await journal.recovered(row.row_id)
    else:
        await journal.forget(row.row_id)


async def _end_unknown(storage: Storage, upload: UnfinishedUpload, swept: Swept, *, is_capture: bool) -> bool:
    """End an upload of which no journal knows; say whether that worked."""
    if not is_capture:
        await _abort(storage, upload)
        swept.count(Ending.ABORTED)
        return True
    try:
        swept.count(await complete(storage, upload, ()))
    except Permanent as error:
        _left(upload, error)
        return False
    return True


async def complete(
    storage: Storage, upload: UnfinishedUpload, parts: Sequence[UploadedPart], *, resumed: bool = False
) -> Ending:
    """Make an object of what a dead writer left, and mark it; without any part it is aborted.

    `resumed` says that this was begun before, so that an upload which is gone has been completed then.
    Raises Conflict when another object is at its key, Corrupt, Refused, Unavailable.
    """
    try:
        stored = await storage.complete(upload, parts)
    except NotFound:
        if not resumed:
            await storage.abort(upload)  # what its writer could not tidy any more
            return Ending.ENDED
    else:
        if stored is None:
            await _abort(storage, upload)
            return Ending.ABORTED
    try:
        marked = await storage.mark_recovered(upload.key)
    except NotFound:
        return Ending.ENDED  # removed meanwhile
    log.warning("upload.recovered", key=upload.key, upload_id=upload.upload_id, size_bytes=marked.size_bytes)
    return Ending.RECOVERED


def _left(upload: UnfinishedUpload, error: Permanent) -> None:
    """Tell of a capture that only a person can end; the others go on."""
    log.error("upload.orphaned", key=upload.key, upload_id=upload.upload_id, reason=words_of(error))


async def _intended(
    storage: Storage, journal: UploadJournal, intent: JournalledUpload, dead_ids: set[int]
) -> set[UnfinishedUpload] | None:
    """Find the uploads that an intent may have led to; None when that cannot be told yet."""
    listed = await storage.unfinished(intent.key)
    rows = await journal.rows(intent.key)  # after the listing: see above
    known_ids = {row.upload_id for row in rows if row.row_id != intent.row_id}
    unknown = {upload for upload in listed if upload.key == intent.key and upload.upload_id not in known_ids}
    another_lives = any(row.upload_id is None and row.row_id not in dead_ids for row in rows)
    return None if unknown and another_lives else unknown


async def _abort(storage: Storage, upload: UnfinishedUpload) -> None:
    await storage.abort(upload)
    log.info("upload.aborted", key=upload.key, upload_id=upload.upload_id, started_ms=upload.started_ms)


def _supersedes(ours: Owner | None, theirs: Owner) -> bool:
    """Say whether both are claims on the same work and ours is the later one. Tokens grow with each claim."""
    return ours is not None and ours[0] == theirs[0] and theirs[1] < ours[1]

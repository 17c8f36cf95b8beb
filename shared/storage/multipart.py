"""The journal of uploads, and the sweeper of those that nobody will finish.

A multipart upload is invisible, costs money, and outlives the process that began it. So a row says what is
about to be begun before it is, and goes when the upload is complete or aborted. A row without an upload id is
an intent: its upload may exist or not, and is looked for under its key.

No upload whose claim lives is touched. That rests on one order, kept everywhere here: the store's uploads are
listed first and the journal is read after. An upload in the list was preceded by its row, so when the journal
is read the row is there with its id, or still an intent, or gone because the upload has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import and_, delete, insert, select, update

from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox
from shared.database.tables import upload as upload_table
from shared.storage.port import Storage, UnfinishedUpload

log = structlog.get_logger()

Owner = tuple[int, int]  # (inbox row, token): one claim on one piece of work


@dataclass(frozen=True, slots=True)
class JournalledUpload:
    """A row of the journal."""

    row_id: int
    key: str
    upload_id: str | None
    owner: Owner | None
    started_ms: int
    parts: int

    def found_as(self, upload_id: str) -> UnfinishedUpload:
        """Return it as the store knows it."""
        return UnfinishedUpload(self.key, upload_id, self.started_ms, self.owner)


class UploadJournal:
    """The journal of one store. Keys are those of the port, without the store's own prefix."""

    def __init__(self, database: Database, store: str) -> None:
        """Name in `store` the bucket and prefix, the same in every process and whatever the endpoint."""
        self._database = database
        self._store = store

    async def begin(self, key: str, owner: Owner | None) -> int:
        """Write down that an upload is about to be created, and return its row."""
        inbox_id, token = owner or (None, None)
        row = {
            "store": self._store,
            "key": key,
            "inbox_id": inbox_id,
            "token": token,
            "started_ms": await self._database.now_ms(),
            "parts": 0,
        }

        async def unit(connection: Connection) -> int:
            inserted = await connection.execute(insert(upload_table).values(row).returning(upload_table.c.id))
            row_id: int = inserted.scalar_one()
            return row_id

        return await self._database.write(unit)

    async def created(self, row_id: int, upload_id: str) -> None:
        """Write down under which id the store knows the upload."""
        await self._set(row_id, upload_id=upload_id)

    async def part(self, row_id: int, parts: int) -> None:
        """Write down how many parts the store has."""
        await self._set(row_id, parts=parts)

    async def forget(self, row_id: int) -> None:
        """Remove the row of an upload that has ended, either way."""

        async def unit(connection: Connection) -> None:
            await connection.execute(delete(upload_table).where(upload_table.c.id == row_id))

        await self._database.write(unit)

    async def rows(self, key: str | None = None) -> list[JournalledUpload]:
        """List the journal, of one key or of the whole store, the oldest first."""
        wanted = select(upload_table).where(upload_table.c.store == self._store).order_by(upload_table.c.id)
        if key is not None:
            wanted = wanted.where(upload_table.c.key == key)
        async with self._database.read() as connection:
            found = (await connection.execute(wanted)).mappings().all()
        return [
            JournalledUpload(
                row_id=row["id"],
                key=row["key"],
                upload_id=row["upload_id"],
                owner=None if row["inbox_id"] is None else (row["inbox_id"], row["token"]),
                started_ms=row["started_ms"],
                parts=row["parts"],
            )
            for row in found
        ]

    async def abandoned(self, *, grace_ms: int, key: str | None = None) -> list[JournalledUpload]:
        """List the uploads whose claim has been dead for `grace_ms`, by the database's clock."""
        rows = await self.rows(key)
        alive = await self.living({row.owner for row in rows if row.owner}, grace_ms=grace_ms)
        begun_before_ms = await self._database.now_ms() - grace_ms
        return [
            row for row in rows if row.owner and row.owner not in alive and row.started_ms <= begun_before_ms
        ]

    async def living(self, owners: set[Owner], *, grace_ms: int = 0) -> set[Owner]:
        """Return those claims that are worked on under their token, with a lease that ended not long ago."""
        if not owners:
            return set()
        alive = and_(
            inbox.c.id.in_({inbox_id for inbox_id, _ in owners}),
            inbox.c.state == State.WORKING,
            inbox.c.lease_until_ms > await self._database.now_ms() - grace_ms,
        )
        async with self._database.read() as connection:
            found = (await connection.execute(select(inbox.c.id, inbox.c.token).where(alive))).all()
        return owners & {(row.id, row.token) for row in found}

    async def now_ms(self) -> int:
        """Return the time by which claims and rows age."""
        return await self._database.now_ms()

    async def _set(self, row_id: int, **values: object) -> None:
        async def unit(connection: Connection) -> None:
            await connection.execute(update(upload_table).where(upload_table.c.id == row_id).values(values))

        await self._database.write(unit)


async def abort_abandoned(storage: Storage, journal: UploadJournal, *, key: str, owner: Owner | None) -> None:
    """Abort what earlier claims left under `key`, before its next writer begins.

    Raises Unavailable when the store or the database does not answer.
    """
    rows = [row for row in await journal.rows(key) if row.owner != owner]
    alive = await journal.living({row.owner for row in rows if row.owner})
    # A row without an owner is nobody's: only its age can tell, which is the sweeper's business.
    dead = [row for row in rows if row.owner and (_supersedes(owner, row.owner) or row.owner not in alive)]
    await _end_all(storage, journal, dead)


async def sweep(
    storage: Storage,
    journal: UploadJournal,
    *,
    prefixes: Sequence[str],
    grace_ms: int,
    unknown_age_ms: int,
) -> int:
    """Abort the uploads below `prefixes` that nobody will finish, and return how many there were.

    Those that the journal knows go once their claim has been dead for `grace_ms`. Those that it does not know
    (a store without a journal, an answer that was lost) go once they are `unknown_age_ms` old. Give prefixes
    of derived files only, which are made again. Raises Unavailable.
    """
    below = tuple(prefixes)
    now_ms = await journal.now_ms()
    listed = {upload for prefix in below for upload in await storage.unfinished(prefix)}
    rows = [row for row in await journal.rows() if row.key.startswith(below)]  # after the listing: see above
    dead = [row for row in await journal.abandoned(grace_ms=grace_ms) if row.key.startswith(below)]
    dead += [row for row in rows if row.owner is None and row.started_ms <= now_ms - unknown_age_ms]
    swept = await _end_all(storage, journal, dead)

    known_ids = {row.upload_id for row in rows}
    intended_keys = {row.key for row in rows if row.upload_id is None}
    alive = await journal.living({upload.owner for upload in listed if upload.owner}, grace_ms=grace_ms)
    for upload in listed:
        if upload.upload_id in known_ids or upload.key in intended_keys or upload.owner in alive:
            continue
        if upload.started_ms <= now_ms - (grace_ms if upload.owner else unknown_age_ms):
            await _abort(storage, upload)
            swept += 1
    return swept


async def _end_all(storage: Storage, journal: UploadJournal, dead: Sequence[JournalledUpload]) -> int:
    """Abort what dead rows stand for, and forget them. Return how many uploads that were."""
    dead_ids = {row.row_id for row in dead}
    swept = 0
    for row in dead:
        swept += await _end(storage, journal, row, dead_ids)
    return swept


async def _end(storage: Storage, journal: UploadJournal, row: JournalledUpload, dead_ids: set[int]) -> int:
    uploads = (
        {row.found_as(row.upload_id)} if row.upload_id else await _intended(storage, journal, row, dead_ids)
    )
    if uploads is None:
        return 0
    for upload in uploads:
        await _abort(storage, upload)
    await journal.forget(row.row_id)
    return len(uploads)


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

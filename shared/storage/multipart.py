"""The journal of uploads. `sweeping.py` ends those that nobody will finish.

There are two kinds of upload. What is *derived* is made again, so once its claim is dead it is aborted. A
*capture* comes once and plays from its first part on: once its claim is dead it is completed from the parts
that are there, and marked as recovered, in the object's metadata and here.

A multipart upload is invisible, costs money, and outlives the process that began it. So a row says what is
about to be begun before it is, and goes when the upload is complete or aborted. A row without an upload id is
an intent: its upload may exist or not, and is looked for under its key.

No upload whose claim lives is touched. That rests on one order, kept wherever it is read: the store's
uploads are listed first and the journal is read after. An upload in the list was preceded by its row, so when
the journal is read the row is there with its id, or still an intent, or gone because the upload has ended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, and_, delete, insert, select, update

from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox
from shared.database.tables import upload as upload_table
from shared.database.tables import upload_part as part_table
from shared.storage.port import UnfinishedUpload, UploadedPart

Owner = tuple[int, int]  # (inbox row, token): one claim on one piece of work
KEPT_MS = 30 * 24 * 3_600_000  # for so long the journal tells of what was recovered


@dataclass(frozen=True, slots=True)
class JournalledUpload:
    """A row of the journal."""

    row_id: int
    key: str
    upload_id: str | None
    owner: Owner | None
    started_ms: int
    parts: int
    is_capture: bool = False
    recovering_ms: int | None = None
    recovered_ms: int | None = None

    def found_as(self, upload_id: str) -> UnfinishedUpload:
        """Return it as the store knows it."""
        return UnfinishedUpload(self.key, upload_id, self.started_ms, self.owner, self.is_capture)


class UploadJournal:
    """The journal of one store. Keys are those of the port, without the store's own prefix."""

    def __init__(self, database: Database, store: str) -> None:
        """Name in `store` the bucket and prefix, the same in every process and whatever the endpoint."""
        self._database = database
        self._store = store

    async def begin(self, key: str, owner: Owner | None, *, is_capture: bool = False) -> int:
        """Write down that an upload is about to be created, and return its row."""
        inbox_id, token = owner or (None, None)
        row = {
            "store": self._store,
            "key": key,
            "inbox_id": inbox_id,
            "token": token,
            "started_ms": await self._database.now_ms(),
            "parts": 0,
            "is_capture": is_capture,
        }

        async def unit(connection: Connection) -> int:
            inserted = await connection.execute(insert(upload_table).values(row).returning(upload_table.c.id))
            row_id: int = inserted.scalar_one()
            return row_id

        return await self._database.write(unit)

    async def created(self, row_id: int, upload_id: str) -> None:
        """Write down under which id the store knows the upload."""
        await self._set(row_id, upload_id=upload_id)

    async def part(self, row_id: int, part: UploadedPart) -> None:
        """Write down a part that the store has."""
        counted = update(upload_table).where(upload_table.c.id == row_id)

        async def unit(connection: Connection) -> None:
            found = await connection.execute(counted.values(parts=upload_table.c.parts + 1))
            if found.rowcount:  # else the upload has ended meanwhile, and nobody asks
                await connection.execute(insert(part_table).values(upload_row=row_id, **asdict(part)))

        await self._database.write(unit)

    async def parts(self, row_id: int) -> list[UploadedPart]:
        """List the parts of an upload that are written down, in their order."""
        columns = part_table.c
        wanted = (
            select(columns.number, columns.size_bytes, columns.etag, columns.crc32)
            .where(columns.upload_row == row_id)
            .order_by(columns.number)
        )
        async with self._database.read() as connection:
            return [UploadedPart(*row) for row in (await connection.execute(wanted)).all()]

    async def recovering(self, row_id: int) -> None:
        """Write down that from now on an upload that has ended was ended by the sweeper."""
        await self._set(row_id, recovering_ms=await self._database.now_ms())

    async def recovered(self, row_id: int) -> None:
        """Write down that the object is there, marked; the row is none of an unfinished upload any more."""
        await self._set(row_id, recovered_ms=await self._database.now_ms())

    async def recoveries(self) -> list[JournalledUpload]:
        """List what was recovered in the last thirty days, the oldest first."""
        return await self._rows(upload_table.c.recovered_ms.is_not(None))

    async def purge(self) -> None:
        """Forget what was recovered long ago."""
        long_ago = upload_table.c.recovered_ms < await self._database.now_ms() - KEPT_MS

        async def unit(connection: Connection) -> None:
            await connection.execute(
                delete(upload_table).where(upload_table.c.store == self._store, long_ago)
            )

        await self._database.write(unit)

    async def forget(self, row_id: int) -> None:
        """Remove the row of an upload that has ended, either way."""

        async def unit(connection: Connection) -> None:
            await connection.execute(delete(upload_table).where(upload_table.c.id == row_id))

        await self._database.write(unit)

    async def rows(self, key: str | None = None) -> list[JournalledUpload]:
        """List the unfinished uploads, of one key or of the whole store, the oldest first."""
        unfinished = upload_table.c.recovered_ms.is_(None)
        return await self._rows(unfinished if key is None else and_(unfinished, upload_table.c.key == key))

    async def _rows(self, condition: ColumnElement[bool]) -> list[JournalledUpload]:
        ours = and_(upload_table.c.store == self._store, condition)
        wanted = select(upload_table).where(ours).order_by(upload_table.c.id)
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
                is_capture=row["is_capture"],
                recovering_ms=row["recovering_ms"],
                recovered_ms=row["recovered_ms"],
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

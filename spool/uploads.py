"""The unfinished uploads of the configured store, as a person sees and ends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from shared.database.opening import is_sqlite, open_database, sqlite_path
from shared.kernel.errors import NotFound, Refused
from shared.runtime.clock import SystemClock
from shared.runtime.lock import held_directory
from shared.runtime.wiring import Lending, open_storage, store_name
from shared.settings.settings import Settings
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage, UnfinishedUpload
from shared.storage.sweeping import Ending, complete


@dataclass(frozen=True, slots=True)
class SeenUpload:
    """An upload, as the store and the journal together tell of it."""

    upload: UnfinishedUpload
    row_id: int | None
    parts: int | None  # None: only the store would know
    is_alive: bool | None  # None: there is nobody to ask
    is_recovering: bool = False
    is_recovered: bool = False


class Uploads:
    """A store with its journal. Without a database there is only what the store itself remembers."""

    def __init__(self, storage: Storage, journal: UploadJournal | None) -> None:
        self._storage = storage
        self._journal = journal

    async def all(self) -> list[SeenUpload]:
        """List unfinished uploads and what was recovered lately, the oldest first."""
        listed = await self._storage.unfinished()
        if self._journal is None:
            seen = [SeenUpload(upload, None, None, None) for upload in listed]
        else:
            seen = await self._journalled(self._journal, listed)
        return sorted(seen, key=lambda one: (one.upload.started_ms, one.upload.upload_id))

    async def complete(self, upload_id: str) -> Ending:
        """Make an object of the parts that are there. Raises Refused, NotFound, Conflict, Unavailable."""
        seen = await self._dead(upload_id)
        if seen.upload.is_capture is False:
            hint = f"abort it: spool uploads abort {upload_id}"
            raise Refused("a derived file does not play without its end, and is made again", hint=hint)
        journal, row_id = self._journal, seen.row_id
        if journal is None or row_id is None:
            return await complete(self._storage, seen.upload, ())
        if not seen.is_recovering:
            await journal.recovering(row_id)
        parts = await journal.parts(row_id)
        ending = await complete(self._storage, seen.upload, parts, resumed=seen.is_recovering)
        await (journal.recovered(row_id) if ending is Ending.RECOVERED else journal.forget(row_id))
        return ending

    async def abort(self, upload_id: str) -> None:
        """Discard an upload with all its bytes. Raises Refused, NotFound, Unavailable."""
        seen = await self._dead(upload_id)
        await self._storage.abort(seen.upload)
        if self._journal and seen.row_id is not None:
            await self._journal.forget(seen.row_id)

    async def _journalled(self, journal: UploadJournal, listed: list[UnfinishedUpload]) -> list[SeenUpload]:
        rows = await journal.rows() + await journal.recoveries()  # after the listing, as everywhere
        owners = {upload.owner for upload in listed if upload.owner} | {
            row.owner for row in rows if row.owner
        }
        alive = await journal.living(owners)
        seen = [
            SeenUpload(
                upload=row.found_as(row.upload_id or ""),
                row_id=row.row_id,
                parts=row.parts,
                is_alive=row.owner in alive,
                is_recovering=row.recovering_ms is not None,
                is_recovered=row.recovered_ms is not None,
            )
            for row in rows
        ]
        known_ids = {one.upload.upload_id for one in seen}
        others = [upload for upload in listed if upload.upload_id not in known_ids]
        return seen + [
            SeenUpload(upload, None, None, upload.owner in alive if upload.owner else None)
            for upload in others
        ]

    async def _dead(self, upload_id: str) -> SeenUpload:
        """Return an unfinished upload that nobody works on."""
        for seen in await self.all():
            if upload_id and seen.upload.upload_id == upload_id and not seen.is_recovered:
                if seen.is_alive:
                    raise Refused(f"{seen.upload.key} is being written: its claim lives")
                return seen
        raise NotFound(f"there is no unfinished upload {upload_id}", hint="spool uploads list")


@asynccontextmanager
async def open_uploads(settings: Settings, *, changing: bool) -> AsyncIterator[Uploads]:
    """Open the configured store, and its journal where there is a database.

    Whoever is `changing` something holds the data directory of an embedded Spool, as that one would.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        if changing and settings.database is None:
            stack.enter_context(held_directory(settings.data_directory))
        address = settings.database_address
        journal: UploadJournal | None = None
        if not is_sqlite(address) or sqlite_path(address).exists():
            database = await open_database(address, clock=clock)
            stack.push_async_callback(database.close)
            journal = UploadJournal(database, store_name(settings))
        lending = Lending(public_url="", signing_key=b"")  # nothing is signed here
        storage = await open_storage(settings, clock=clock, uploads=journal, lending=lending)
        stack.push_async_callback(storage.close)
        yield Uploads(storage, journal)

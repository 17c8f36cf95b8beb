"""A writer of a capture that is killed: `python -m tests.integration.capturing` with what `Capture` says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.database.engine import Database
from shared.database.opening import open_database
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_address import S3Address

CHUNK_BYTES = 256 << 10  # as a recorder gets it
KEY = "captures/c1/1.mp4"


@dataclass(frozen=True, slots=True)
class Capture:
    """Where from, where to, for whom, and how many parts its writer lives to see confirmed."""

    recording: str
    address: str  # a directory, or s3://…
    database: str
    owner: tuple[int, int]
    dies_after: int
    is_capture: bool = True

    def told(self) -> str:
        return json.dumps(asdict(self))


def journal_of(database: Database, address: str) -> UploadJournal:
    """Return the journal of a store as a service would name it."""
    return UploadJournal(database, S3Address.parse(address).name if address.startswith("s3:") else address)


async def open_store(address: str, journal: UploadJournal | None) -> Storage:
    """Open either kind of store."""
    if address.startswith("s3:"):
        return await S3Storage.open(address, journal=journal)
    return await FileStorage.open(Path(address), public_url="", signing_key=b"key", clock=SystemClock())


async def confirmed_bytes(address: str, journal: UploadJournal) -> list[int]:
    """Return how long the confirmed parts are, as they are written down."""
    if address.startswith("s3:"):
        [row] = await journal.rows(KEY)
        return [part.size_bytes for part in await journal.parts(row.row_id)]
    lines = [line for path in Path(address).rglob("*.parts") for line in path.read_text().splitlines()]
    return [int(line.split()[1]) for line in lines]


async def capture(told: Capture) -> None:
    """Write the recording; the process is no more once enough parts are confirmed."""
    database = await open_database(told.database, clock=SystemClock())
    journal = journal_of(database, told.address)
    storage = await open_store(told.address, journal)
    options = WriteOptions(
        "video/mp4", owner=told.owner, metadata={"camera": "c1"}, is_capture=told.is_capture
    )
    content = Path(told.recording).read_bytes()
    async with storage.writer(KEY, options) as writer:
        for start in range(0, len(content), CHUNK_BYTES):
            await writer.write(content[start : start + CHUNK_BYTES])
            if await _lived_to_see(told, journal):
                os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(3600)  # until it is killed from outside


async def _lived_to_see(told: Capture, journal: UploadJournal) -> bool:
    if told.address.startswith("s3:") and not await journal.rows(KEY):
        return False
    return len(await confirmed_bytes(told.address, journal)) >= max(told.dies_after, 1)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asyncio.run(capture(Capture(**given | {"owner": tuple(given["owner"])})))

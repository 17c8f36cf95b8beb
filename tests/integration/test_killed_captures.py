"""The writer of a capture is killed at every part: what was confirmed is an object that plays."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import imageio_ffmpeg
import pytest
from sqlalchemy import insert, update

from shared.database.engine import Connection, Database
from shared.database.opening import open_database
from shared.database.tables import State, inbox
from shared.kernel.errors import NotFound
from shared.runtime.clock import SystemClock
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage, WriteOptions
from shared.storage.s3_parts import MIB
from shared.storage.sweeping import Swept, sweep
from spool.migrations import migrate
from tests.integration.capturing import KEY, Capture, confirmed_bytes, journal_of, open_store

PARTS = 4  # of 8 MiB in a bucket; of 1 MiB in a directory, where there are more of them than are tried


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fragmented MP4 of more than 33 MiB: noise, which does not compress."""
    path = tmp_path_factory.mktemp("capture") / "capture.mp4"
    noise = ("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25,noise=alls=80:allf=t", "-frames:v", "250")
    subprocess.run(
        [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *noise),
            *("-c:v", "libx264", "-preset", "ultrafast", "-qp", "10", "-g", "5"),
            *("-movflags", "frag_keyframe+empty_moov+default_base_moof", str(path)),
        ],
        check=True,
    )
    assert path.stat().st_size > (PARTS * 8 + 1) * MIB
    return path


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    await migrate(f"sqlite:///{tmp_path}/spool.db")
    return await open_database(f"sqlite:///{tmp_path}/spool.db", clock=SystemClock())


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "media")
    url: str = request.getfixturevalue("s3_url")
    return url


async def claim(database: Database) -> tuple[int, int]:
    now_ms = await database.now_ms()

    async def unit(connection: Connection) -> int:
        row = {"consumer": "c", "source": "test", "event_id": "1", "type": "t", "subject": "a", "token": 1}
        times = {"state": State.WORKING, "lease_until_ms": now_ms + 600_000, "received_ms": now_ms}
        inserted = await connection.execute(insert(inbox).values(row | times).returning(inbox.c.id))
        row_id: int = inserted.scalar_one()
        return row_id

    return await database.write(unit), 1


async def let_claims_die(database: Database) -> None:
    async def unit(connection: Connection) -> None:
        await connection.execute(update(inbox).values(lease_until_ms=0))

    await database.write(unit)


async def killed(capture: Capture) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.capturing", capture.told()
    )
    assert await process.wait() == -signal.SIGKILL


async def journal_of_the_dead(
    database: Database, address: str, recording: Path, tmp_path: Path
) -> UploadJournal:
    """Let the writer of a capture die after its first part, and its claim too; return the journal."""
    owner = await claim(database)
    await killed(Capture(str(recording), address, f"sqlite:///{tmp_path}/spool.db", owner, 1))
    await let_claims_die(database)
    return journal_of(database, address)


async def swept(storage: Storage, journal: UploadJournal) -> Swept:
    return await sweep(
        storage, journal, prefixes=["captures/"], grace_ms=0, unknown_age_ms=3_600_000, captures=True
    )


async def bytes_of(storage: Storage) -> bytes:
    async with storage.read(KEY) as chunks:
        return b"".join([chunk async for chunk in chunks])


def frames_of(content: bytes) -> int:
    """Decode what there is, and return the number of pictures."""
    argv = (imageio_ffmpeg.get_ffmpeg_exe(), "-v", "fatal", "-i", "pipe:0", "-f", "framecrc", "-")
    decoded = subprocess.run(argv, input=content, capture_output=True, check=True)
    return sum(not line.startswith(b"#") for line in decoded.stdout.splitlines())


@pytest.mark.limit(180)  # it decodes some ten MiB of noise, on a machine that has much else to do
@pytest.mark.parametrize("parts", range(1, PARTS + 1))
async def test_what_was_confirmed_before_the_kill_is_an_object_that_plays(
    address: str, database: Database, recording: Path, tmp_path: Path, parts: int
) -> None:
    owner = await claim(database)
    await killed(Capture(str(recording), address, f"sqlite:///{tmp_path}/spool.db", owner, parts))
    journal = journal_of(database, address)
    storage = await open_store(address, journal)
    confirmed = await confirmed_bytes(address, journal)

    alive = await swept(storage, journal)
    [untouched] = await storage.unfinished()
    await let_claims_die(database)
    dead = await swept(storage, journal)
    again = await swept(storage, journal)

    found, content = await storage.head(KEY), await bytes_of(storage)
    left = await storage.unfinished()
    recoveries = [row.upload_id for row in await journal.recoveries()]
    await storage.close()
    await database.close()
    assert (alive, dead.recovered, again) == (Swept(), 1, Swept())
    assert (dead.aborted, dead.orphans, left) == (0, 0, [])
    assert len(confirmed) >= parts
    assert content == recording.read_bytes()[: sum(confirmed)]
    assert (found.is_recovered, found.content_type) == (True, "video/mp4")
    assert recoveries == ([untouched.upload_id] if urlsplit(address).scheme == "s3" else [])
    assert frames_of(content) >= 2 * parts


async def test_a_sweeper_killed_between_completing_and_marking_is_followed_by_one_that_marks(
    s3_url: str, database: Database, recording: Path, tmp_path: Path
) -> None:
    journal = await journal_of_the_dead(database, s3_url, recording, tmp_path)
    storage = await open_store(s3_url, journal)
    [row] = await journal.rows()
    assert row.upload_id is not None
    await journal.recovering(row.row_id)
    completed = await storage.complete(row.found_as(row.upload_id), await journal.parts(row.row_id))

    next_sweep = await swept(storage, journal)

    found, left = await storage.head(KEY), await journal.rows()
    await storage.close()
    await database.close()
    assert completed is not None
    assert (completed.is_recovered, found.is_recovered) == (False, True)
    assert (next_sweep.recovered, next_sweep.orphans, left) == (1, 0, [])


async def test_a_capture_never_replaces_an_object_and_is_told_as_an_orphan(
    address: str, database: Database, recording: Path, tmp_path: Path
) -> None:
    journal = await journal_of_the_dead(database, address, recording, tmp_path)
    storage = await open_store(address, None)
    async with storage.writer(KEY, WriteOptions()) as writer:
        await writer.write(b"somebody else's")

    first, second = await swept(storage, journal), await swept(storage, journal)

    content, left = await bytes_of(storage), await storage.unfinished()
    await storage.close()
    await database.close()
    assert (first.recovered, first.orphans, second.orphans) == (0, 1, 1)
    assert content == b"somebody else's"
    assert len(left) == 1


async def test_a_capture_that_was_killed_before_its_first_part_leaves_nothing(
    address: str, database: Database, tmp_path: Path
) -> None:
    journal = journal_of(database, address)
    storage = await open_store(address, journal)
    owner = await claim(database)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    capture = Capture(str(empty), address, f"sqlite:///{tmp_path}/spool.db", owner, 1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.capturing", capture.told()
    )
    await asyncio.sleep(3)
    process.kill()
    await process.wait()
    await let_claims_die(database)

    await swept(storage, journal)

    with pytest.raises(NotFound):
        await storage.head(KEY)
    assert (await storage.unfinished(), await journal.rows()) == ([], [])
    await storage.close()
    await database.close()

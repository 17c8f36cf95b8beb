"""Uploads whose writer died: the next writer of the key and the sweeper end them, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import insert, update

from services.clipper.periodic import GRACE_MS, sweep_uploads
from services.clipper.settings import ClipperSettings
from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox
from shared.database.tables import upload as upload_table
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.local_writer import FileWriter
from shared.storage.multipart import UploadJournal
from shared.storage.port import Storage, WriteOptions
from shared.storage.s3 import S3Storage
from shared.storage.s3_bucket import Bucket
from shared.storage.s3_parts import PART_BYTES
from shared.storage.s3_upload import MultipartUpload
from shared.storage.s3_writer import S3Writer
from shared.storage.sweeping import sweep

HOUR_MS = 3_600_000
ONE_PART = bytes(PART_BYTES)


@dataclass
class Place:
    """A store with its journal, and the inbox that says whose claims live."""

    storage: Storage
    journal: UploadJournal
    database: Database

    async def claim(self, *, state: State = State.WORKING, lease_ms: int = 30_000) -> tuple[int, int]:
        """Take a new piece of work under token 1, with a lease that ends in `lease_ms`."""
        now_ms = await self.database.now_ms()

        async def unit(connection: Connection) -> int:
            row = {
                "consumer": "clipper.clip_requested",
                "source": "test",
                "event_id": f"{now_ms}-{id(row_ids)}-{len(row_ids)}",
                "type": "clip_requested",
                "subject": "a",
                "state": state,
                "token": 1,
                "lease_until_ms": now_ms + lease_ms,
                "received_ms": now_ms,
            }
            inserted = await connection.execute(insert(inbox).values(row).returning(inbox.c.id))
            row_id: int = inserted.scalar_one()
            return row_id

        row_ids = self._row_ids
        row_ids.append(await self.database.write(unit))
        return row_ids[-1], 1

    async def take_over(self, claim: tuple[int, int]) -> tuple[int, int]:
        """Give the work to another worker."""

        async def unit(connection: Connection) -> None:
            await connection.execute(update(inbox).where(inbox.c.id == claim[0]).values(token=claim[1] + 1))

        await self.database.write(unit)
        return claim[0], claim[1] + 1

    async def age(self, by_ms: int) -> None:
        """Let the uploads in the journal have begun so much earlier."""

        async def unit(connection: Connection) -> None:
            await connection.execute(
                update(upload_table).values(started_ms=upload_table.c.started_ms - by_ms)
            )

        await self.database.write(unit)

    async def leave_unfinished(self, key: str, owner: tuple[int, int] | None) -> None:
        """Write as a process does that is killed after its first part."""
        options = WriteOptions(owner=owner)
        if isinstance(self.storage, S3Storage):
            writer = S3Writer(self.storage._bucket, key, options, self.journal, storage=self.storage)
            await writer.write(ONE_PART)
            await writer._upload.settle()
            return
        assert isinstance(self.storage, FileStorage)
        draft = FileWriter(
            key,
            options,
            storage=self.storage,
            folder=self.storage._folder,
            drafts=self.storage._drafts,
            threads=self.storage._threads,
            clock=SystemClock(),
        )
        await draft.begin()
        await draft.write(ONE_PART)
        draft._close()  # as the end of the process does

    async def sweep(self, *, grace_ms: int = 0, unknown_age_ms: int = HOUR_MS) -> int:
        swept = await sweep(
            self.storage, self.journal, prefixes=["clips/"], grace_ms=grace_ms, unknown_age_ms=unknown_age_ms
        )
        return swept.aborted

    async def unfinished_keys(self) -> list[str]:
        return sorted(upload.key for upload in await self.storage.unfinished())

    def __post_init__(self) -> None:
        self._row_ids: list[int] = []


@pytest.fixture(params=["file", "s3"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> AsyncIterator[Place]:
    storage: FileStorage | S3Storage
    if request.param == "file":
        journal = UploadJournal(database, "file:")
        storage = await FileStorage.open(
            tmp_path / "media", public_url="http://spool.test", signing_key=b"key", clock=SystemClock()
        )
    else:
        url: str = request.getfixturevalue("s3_url")
        journal = UploadJournal(database, url)
        storage = await S3Storage.open(url, journal=journal)
    yield Place(storage, journal, database)
    for upload in await storage.unfinished():
        await storage.abort(upload)
    await storage.close()


@pytest.fixture
def bucket(place: Place) -> Bucket:
    if not isinstance(place.storage, S3Storage):
        pytest.fail("ask for this on S3 only")
    return place.storage._bucket


on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


async def test_an_upload_whose_claim_lives_is_not_touched(place: Place) -> None:
    await place.leave_unfinished("clips/a", await place.claim())

    assert await place.sweep(unknown_age_ms=0) == 0
    assert await place.unfinished_keys() == ["clips/a"]


@pytest.mark.parametrize(
    ("state", "lease_ms"),
    [
        pytest.param(State.WORKING, -1, id="the lease is over"),
        pytest.param(State.READY, 30_000, id="given back"),
        pytest.param(State.DONE, 30_000, id="done"),
        pytest.param(State.DEAD, 30_000, id="dead"),
    ],
)
async def test_an_upload_whose_claim_is_dead_is_swept(place: Place, state: State, lease_ms: int) -> None:
    await place.leave_unfinished("clips/a", await place.claim(state=state, lease_ms=lease_ms))
    await place.leave_unfinished("clips/b", await place.claim())

    assert await place.sweep() == 1
    assert await place.unfinished_keys() == ["clips/b"]
    assert [row.key for row in await place.journal.rows() if row.key == "clips/a"] == []
    assert await place.sweep() == 0


async def test_an_upload_elsewhere_is_another_sweepers_business(place: Place) -> None:
    await place.leave_unfinished("captures/a", await place.claim(lease_ms=-1))

    assert await place.sweep(unknown_age_ms=-HOUR_MS) == 0
    assert await place.unfinished_keys() == ["captures/a"]


async def test_an_upload_of_a_lost_claim_is_swept_after_the_grace(place: Place) -> None:
    claim = await place.claim()
    await place.leave_unfinished("clips/a", claim)
    await place.take_over(claim)

    assert await place.sweep(grace_ms=HOUR_MS) == 0
    assert await place.sweep(grace_ms=0) == 1
    assert await place.unfinished_keys() == []


async def test_the_next_claim_ends_what_the_last_one_left_before_it_writes(place: Place) -> None:
    claim = await place.claim()
    await place.leave_unfinished("clips/a", claim)
    await place.leave_unfinished("clips/ab", claim)
    claim = await place.take_over(claim)

    async with place.storage.writer("clips/a", WriteOptions(owner=claim)) as writer:
        begun = await place.storage.unfinished()
        await writer.write(b"small")

    assert {upload.owner for upload in begun if upload.key == "clips/a"} <= {claim}
    assert await place.unfinished_keys() == ["clips/ab"]
    assert (await place.storage.head("clips/a")).size_bytes == 5


async def test_another_living_claim_on_the_same_key_is_not_disturbed(place: Place) -> None:
    first, second = await place.claim(), await place.claim()
    await place.leave_unfinished("clips/a", first)

    async with place.storage.writer("clips/a", WriteOptions(owner=second)) as writer:
        await writer.write(ONE_PART + b"more")

    assert await place.unfinished_keys() == ["clips/a"]
    assert len({upload.upload_id for upload in await place.storage.unfinished()}) == 1


async def test_an_upload_without_a_claim_is_swept_by_its_age_and_below_the_prefixes_only(
    place: Place,
) -> None:
    await place.leave_unfinished("clips/a", None)

    assert await place.sweep(unknown_age_ms=HOUR_MS) == 0
    assert await place.sweep(unknown_age_ms=-HOUR_MS) == 1
    assert await place.unfinished_keys() == []
    assert await place.journal.rows() == []


@on_s3
async def test_an_upload_that_no_journal_knows_is_swept_by_its_age(place: Place, bucket: Bucket) -> None:
    for key in ("clips/a", "captures/a"):
        await bucket.create_upload(key, metadata={}, options=WriteOptions())

    assert await place.sweep(unknown_age_ms=HOUR_MS) == 0
    assert await place.sweep(unknown_age_ms=-HOUR_MS) == 1
    assert await place.unfinished_keys() == ["captures/a"]


@on_s3
async def test_an_intent_finds_the_upload_whose_id_was_never_written_down(
    place: Place, bucket: Bucket
) -> None:
    claim = await place.claim(lease_ms=-1)
    await place.journal.begin("clips/a", claim)
    await bucket.create_upload("clips/a", metadata={}, options=WriteOptions())
    await bucket.create_upload("clips/ab", metadata={}, options=WriteOptions())
    await place.journal.begin("clips/never-created", claim)

    assert await place.sweep() == 1
    assert await place.unfinished_keys() == ["clips/ab"]
    assert await place.journal.rows() == []


@on_s3
async def test_an_intent_that_lives_keeps_uploads_of_its_key_from_being_taken_for_another(
    place: Place, bucket: Bucket
) -> None:
    await place.journal.begin("clips/a", await place.claim(lease_ms=-1))
    await place.journal.begin("clips/a", await place.claim())
    await bucket.create_upload("clips/a", metadata={}, options=WriteOptions())

    assert await place.sweep(unknown_age_ms=-HOUR_MS) == 0
    assert await place.unfinished_keys() == ["clips/a"]


@on_s3
async def test_two_dead_intents_of_one_key_are_both_ended(place: Place, bucket: Bucket) -> None:
    for _ in range(2):
        await place.journal.begin("clips/a", await place.claim(lease_ms=-1))
        await bucket.create_upload("clips/a", metadata={}, options=WriteOptions())

    assert await place.sweep() == 2
    assert await place.unfinished_keys() == []
    assert await place.journal.rows() == []


@on_s3
async def test_the_row_stands_before_the_upload_and_counts_its_parts(place: Place, bucket: Bucket) -> None:
    claim = await place.claim()
    upload = MultipartUpload(bucket, "clips/a", WriteOptions(owner=claim), place.journal)

    await upload.create({})
    [created] = await place.journal.rows()
    [listed] = await place.storage.unfinished()
    await place.leave_unfinished("clips/b", claim)
    [written] = await place.journal.rows("clips/b")
    await upload.discard()

    assert (created.key, created.upload_id, created.owner, created.parts) == (
        "clips/a",
        listed.upload_id,
        claim,
        0,
    )
    assert written.parts == 1
    assert await place.journal.rows("clips/a") == []


@on_s3
async def test_a_finished_object_leaves_no_row(place: Place) -> None:
    async with place.storage.writer("clips/a", WriteOptions(owner=await place.claim())) as writer:
        await writer.write(ONE_PART + b"more")

    assert await place.journal.rows() == []
    assert await place.unfinished_keys() == []


@on_s3
async def test_what_the_clipper_sweeps_is_counted(place: Place) -> None:
    before = REGISTRY.get_sample_value("spool_uploads_swept_total") or 0
    for key in ("clips/a", "clips/b"):
        await place.leave_unfinished(key, await place.claim(lease_ms=-2 * GRACE_MS))
    await place.age(2 * GRACE_MS)
    for _ in range(2):  # there is nothing left to count the second time
        await sweep_uploads(storage=place.storage, uploads=place.journal, settings=ClipperSettings())

    assert (REGISTRY.get_sample_value("spool_uploads_swept_total") or 0) - before == 2

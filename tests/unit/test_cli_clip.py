"""`spool clip` by its parts: where files are, the two stores it shows to the engine, and what it proves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from shared.kernel.errors import Bug, Conflict, Corrupt, NotFound, Refused
from shared.storage.port import WriteOptions
from spool.one_file import OneFile
from spool.opening import quiet_logs
from spool.place import S3Place, read_place
from spool.proof import compare_hashes, compare_numbers, hashes_between
from spool.two_places import RESULT, Slot, TwoPlaces


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("my.mp4", Path("my.mp4"), id="path"),
        pytest.param("/a b/c.mp4", Path("/a b/c.mp4"), id="absolute"),
        pytest.param("s3:/odd.mp4", Path("s3:/odd.mp4"), id="one-slash-is-a-path"),
        pytest.param("s3://b/a/c.mp4", S3Place("s3://b/a/c.mp4", "s3://b", "a/c.mp4"), id="object"),
        pytest.param(
            "s3://b/c%20d.mp4?endpoint=http://h:1&region=r",
            S3Place("s3://b/c d.mp4", "s3://b?endpoint=http://h:1&region=r", "c d.mp4"),
            id="object-with-an-endpoint",
        ),
    ],
)
def test_a_place_is_a_path_or_an_object(text: str, place: object) -> None:
    assert read_place(text) == place


@pytest.mark.parametrize(
    "text", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://b/../x", "s3://b//x"]
)
def test_an_address_that_names_no_object_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="s3://"):
        read_place(text)


SOURCE = "my film.mp4"


async def _read(store: TwoPlaces | OneFile, key: str, start: int = 0, end: int | None = None) -> bytes:
    async with store.read(key, start=start, end=end) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_file_is_read_by_ranges_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(256)) * 10_000)
    store = OneFile(path)

    whole, part = await _read(store, "any"), await _read(store, "any", 300, 310)

    assert whole == path.read_bytes()
    assert part == whole[300:310]
    assert store.bytes_read == len(whole) + 10


async def test_a_file_that_changes_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"one")
    etag = (await OneFile(path).head("any")).etag
    path.write_bytes(b"another")

    with pytest.raises(Conflict):
        async with OneFile(path).read("any", if_match=etag):
            pass


async def test_a_file_that_ends_early_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"short")

    with pytest.raises(Corrupt, match="ends at byte 5"):
        await _read(OneFile(path), "any", 0, 6)


async def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(NotFound):
        await OneFile(tmp_path / "nowhere").head("any")
    with pytest.raises(Refused, match="regular file"):
        await OneFile(tmp_path / "pipe").head("any")


def _two_places(tmp_path: Path) -> TwoPlaces:
    (tmp_path / "in").write_bytes(b"source")
    return TwoPlaces(SOURCE, Slot(OneFile(tmp_path / "in"), "x"), Slot(OneFile(tmp_path / "out"), "y"))


async def test_the_result_is_there_only_once_it_is_written(tmp_path: Path) -> None:
    store = _two_places(tmp_path)

    with pytest.raises(NotFound):
        await store.head(RESULT)
    assert [found.key async for found in store.walk()] == [SOURCE]
    async with store.writer(RESULT, WriteOptions()) as writer:
        await writer.write(b"result")

    assert (await store.head(RESULT)).size_bytes == 6
    assert writer.stored.sha256 is not None
    assert await _read(store, RESULT) == b"result"
    assert [found.key async for found in store.walk()] == [RESULT, SOURCE]


async def test_nothing_writes_to_the_source(tmp_path: Path) -> None:
    store = _two_places(tmp_path)

    with pytest.raises(Bug):
        async with store.writer(SOURCE, WriteOptions()):
            pass
    with pytest.raises(Bug):
        await store.delete(SOURCE)
    with pytest.raises(Bug):
        await store.head("elsewhere")

    assert (tmp_path / "in").read_bytes() == b"source"


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        pytest.param([5, 6, 7, 8], 0, id="exact"),
        pytest.param([4, 5, 6, 7, 8], 1, id="one-too-early"),
        pytest.param([6, 7, 8], 1, id="one-too-late"),
        pytest.param([5, 6, 7, 8, 9], 1, id="one-too-many"),
        pytest.param([5, 6, 8], 1, id="one-missing-inside"),
        pytest.param([5, 6, 6, 7, 8], 1, id="one-twice"),
        pytest.param([5, 7, 6, 8], 1, id="order"),
        pytest.param([], 1, id="nothing"),
    ],
)
def test_a_wrong_frame_anywhere_fails_a_check(found: list[int], failed: int) -> None:
    checks = compare_numbers(found, range(5, 9))

    assert sum(not check.passed for check in checks) == failed


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        pytest.param("abc", (True, True, True), id="exact"),
        pytest.param("bc", (False, True, False), id="late"),
        pytest.param("ab", (True, False, False), id="short"),
        pytest.param("axc", (True, True, False), id="another-in-the-middle"),
        pytest.param("", (False,), id="nothing"),
    ],
)
def test_other_pixels_anywhere_fail_a_check(found: str, passed: tuple[bool, ...]) -> None:
    assert tuple(check.passed for check in compare_hashes(list(found), list("abc"))) == passed


def test_frames_are_picked_by_the_time_at_which_they_are_shown() -> None:
    listing = "\n".join(
        [
            "#format: frame checksums",
            "#tb 0: 1/1000",
            *(f"0, {t}, {t}, 40, 99, h{t}" for t in (960, 1000, 1040, 1080)),
        ]
    )

    assert hashes_between(listing, start_ms=1000, end_ms=1080) == ["h1000", "h1040"]


def test_what_a_store_would_log_does_not_mix_with_what_a_command_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = structlog.get_config()
    with quiet_logs():
        structlog.get_logger().warning("storage.copies_less")

    assert capsys.readouterr() == ("", "")
    assert structlog.get_config() == before

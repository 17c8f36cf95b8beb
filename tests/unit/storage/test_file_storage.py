"""A directory as a store: what a flat store does not know. Links, directories, files of other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.kernel.errors import Conflict, NotFound, Refused, Unavailable
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.local_writer import FileWriter
from shared.storage.port import UnfinishedUpload, WriteOptions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "media"


@pytest.fixture
async def storage(root: Path) -> AsyncIterator[FileStorage]:
    opened = await FileStorage.open(
        root, public_url="http://spool.test", signing_key=b"k", clock=SystemClock()
    )
    yield opened
    await opened.close()


async def store(storage: FileStorage, key: str, content: bytes = b"x") -> None:
    async with storage.writer(key, WriteOptions()) as writer:
        await writer.write(content)


async def fetch(storage: FileStorage, key: str) -> bytes:
    async with storage.read(key) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def keys(storage: FileStorage) -> list[str]:
    return [stored.key async for stored in storage.walk()]


async def test_no_link_is_followed_out_of_the_root(storage: FileStorage, root: Path) -> None:
    (root / "file").symlink_to(root.parent / "outside" / "secret")
    (root / "directory").symlink_to(root.parent / "outside")

    for key in ("file", "directory/secret"):
        with pytest.raises(NotFound):
            await storage.head(key)
        with pytest.raises(NotFound):
            await fetch(storage, key)
    with pytest.raises(Conflict):
        await store(storage, "directory/new")
    await storage.delete("directory/secret")

    assert await keys(storage) == []
    assert [path.name for path in (root.parent / "outside").iterdir()] == ["secret"]


async def test_an_object_takes_the_place_of_a_link_and_not_of_its_target(
    storage: FileStorage, root: Path
) -> None:
    (root / "file").symlink_to(root.parent / "outside" / "secret")

    await store(storage, "file", b"ours")

    assert await fetch(storage, "file") == b"ours"
    assert (root.parent / "outside" / "secret").read_bytes() == b"secret"


async def test_what_is_no_regular_file_is_no_object(storage: FileStorage, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "directory").mkdir()

    for key in ("pipe", "directory"):
        with pytest.raises(NotFound):
            await storage.head(key)
        with pytest.raises(NotFound):
            await fetch(storage, key)
    assert await keys(storage) == []


async def test_an_object_cannot_lie_below_another(storage: FileStorage) -> None:
    await store(storage, "a")
    await store(storage, "b/c")

    with pytest.raises(Conflict, match="a is an object"):
        await store(storage, "a/b")
    with pytest.raises(Conflict, match="objects below b/"):
        await store(storage, "b")

    assert await keys(storage) == ["a", "b/c"]
    assert await storage.unfinished() == []


async def test_an_empty_directory_stands_in_nobodys_way(storage: FileStorage, root: Path) -> None:
    (root / "a").mkdir()

    await store(storage, "a")

    assert await keys(storage) == ["a"]


async def test_keys_are_walked_in_the_order_of_a_flat_store(storage: FileStorage) -> None:
    written = ["a-b", "a.x", "a/b", "a/c", "a/d/e", "a0", "ä", "カ", "🎥"]
    for key in written:
        await store(storage, key)

    assert await keys(storage) == sorted(written, key=str.encode)
    assert [found.key async for found in storage.walk(after="a/c")] == ["a/d/e", "a0", "ä", "カ", "🎥"]
    assert [found.key async for found in storage.walk("a/", after="a/b")] == ["a/c", "a/d/e"]
    assert [found.key async for found in storage.walk("../")] == []


async def test_a_file_that_another_program_put_there_is_an_object(storage: FileStorage, root: Path) -> None:
    (root / "camera").mkdir()
    (root / "camera" / "1.mp4").write_bytes(b"film")

    found = await storage.head("camera/1.mp4")

    assert (found.size_bytes, found.content_type, found.sha256) == (4, None, None)
    assert await fetch(storage, "camera/1.mp4") == b"film"
    (root / "camera" / "1.mp4").write_bytes(b"longer film")
    assert (await storage.head("camera/1.mp4")).etag != found.etag


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * 3_000_000)


def cut_off(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize("change", [overwrite, cut_off])
async def test_a_file_that_is_changed_in_place_while_it_is_read_is_a_conflict(
    storage: FileStorage, root: Path, change: Callable[[Path], None]
) -> None:
    (root / "a").write_bytes(b"y" * 3_000_000)

    async def read_while_it_changes() -> None:
        async with storage.read("a") as chunks:
            await anext(chunks)
            change(root / "a")
            async for _ in chunks:
                pass

    with pytest.raises(Conflict):
        await read_while_it_changes()


async def test_a_disk_that_is_full_is_unavailable_and_says_what_to_do(storage: FileStorage) -> None:
    async def write() -> None:
        async with storage.writer("a", WriteOptions()) as writer:
            assert isinstance(writer, FileWriter)
            assert writer._descriptor is not None
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, writer._descriptor)  # from here on the draft's file has no room
            os.close(full)
            await writer.write(b"x" * 2_000_000)

    with pytest.raises(Unavailable, match="free some space"):
        await write()
    assert await storage.unfinished() == []


async def test_only_an_id_that_the_store_gave_can_be_aborted(storage: FileStorage, root: Path) -> None:
    (root / "a.data").write_bytes(b"x")

    with pytest.raises(Refused):
        await storage.abort(UnfinishedUpload("a", "../a", 0))
    assert (root / "a.data").exists()


async def test_a_root_that_is_gone_fails_the_check(storage: FileStorage, root: Path) -> None:
    root.rename(root.parent / "moved")

    with pytest.raises(Unavailable):
        await storage.check()


async def test_a_root_that_is_a_file_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(Unavailable):
        await FileStorage.open(tmp_path / "file", public_url="", signing_key=b"", clock=SystemClock())


async def test_a_copy_of_the_directory_keeps_what_was_known(storage: FileStorage, root: Path) -> None:
    async with storage.writer("a/b", WriteOptions(content_type="video/mp4")) as writer:
        await writer.write(b"film")
    copy = root.parent / "copy"
    shutil.copytree(root, copy)  # with the times, as any backup keeps them

    restored = await FileStorage.open(copy, public_url="", signing_key=b"", clock=SystemClock())
    found = await restored.head("a/b")
    await restored.close()

    assert found == writer.stored

"""The process dies between any two steps of a write or a delete on the disk: what is there is whole, or gone.

A death is played by letting every call that would change the disk fail from the n-th on, for n = 1, 2, 3 …
until the work gets through.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shared.kernel.errors import NotFound
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.port import WriteOptions

OLD, NEW = b"the old bytes", b"new bytes, and more of them"
CHANGES = ("fsync", "link", "mkdir", "replace", "rmdir", "unlink", "utime", "write")
KEY = "clips/c1/a.mp4"
MOST_STEPS = 200


class Killed(BaseException):
    """The process is no more. Nothing may catch it but the test."""


class Life:
    """Counts the changes that the disk sees, and ends at one of them."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def limit(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return call(*args, **options)

        return limited


async def open_storage(root: Path) -> FileStorage:
    return await FileStorage.open(
        root, public_url="http://spool.test", signing_key=b"key", clock=SystemClock()
    )


async def write(storage: FileStorage, content: bytes, options: WriteOptions) -> None:
    async with storage.writer(KEY, options) as writer:
        await writer.write(content)


async def live(root: Path, steps: int, work: Callable[[FileStorage], Awaitable[None]]) -> bool:
    """Do the work in a process that dies at its `steps`-th change. Return whether it got through."""
    storage = await open_storage(root)
    life = Life(steps)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in CHANGES:
                patch.setattr(os, name, life.limit(getattr(os, name)))
            await work(storage)
    except Killed:
        return False
    finally:
        await storage.close()
    return life.left >= 0


async def content_of(storage: FileStorage) -> bytes | None:
    with suppress(NotFound):
        found = await storage.head(KEY)
        async with storage.read(KEY, if_match=found.etag) as chunks:
            content = b"".join([chunk async for chunk in chunks])
        label = (found.size_bytes, found.content_type)

        assert label == ((len(NEW), "video/mp4") if content == NEW else (len(OLD), "text/plain"))
        assert found.sha256 is not None
        return content
    return None


async def clean_up(root: Path, storage: FileStorage) -> None:
    """Do as the sweeper does, an hour later."""
    for path in (root / ".spool-uploads").glob("*.new"):
        os.utime(path, (0, 0))
    for upload in await storage.unfinished():
        assert upload.key == KEY
        await storage.abort(upload)


def own_files(root: Path) -> tuple[list[str], int]:
    """Return what is left in the store's own directories: names of uploads, number of labels."""
    uploads = sorted(path.name for path in (root / ".spool-uploads").iterdir() if path.name != "lock")
    return uploads, sum(path.is_file() for path in (root / ".spool-meta").rglob("*"))


async def create(storage: FileStorage) -> None:
    await write(storage, NEW, WriteOptions(content_type="video/mp4", if_absent=True))


async def replace(storage: FileStorage) -> None:
    await write(storage, NEW, WriteOptions(content_type="video/mp4"))


async def delete(storage: FileStorage) -> None:
    await storage.delete(KEY)


@pytest.mark.parametrize(
    ("work", "before", "after"),
    [
        pytest.param(create, None, NEW, id="create"),
        pytest.param(replace, OLD, NEW, id="replace"),
        pytest.param(delete, OLD, None, id="delete"),
    ],
)
async def test_a_death_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path,
    work: Callable[[FileStorage], Awaitable[None]],
    before: bytes | None,
    after: bytes | None,
) -> None:
    for steps in range(MOST_STEPS):
        root = tmp_path / str(steps)
        storage = await open_storage(root)
        if before is not None:
            await write(storage, before, WriteOptions(content_type="text/plain"))

        survived = await live(root, steps, work)

        found = await content_of(storage)
        assert found in ({after} if survived else {before, after})
        await clean_up(root, storage)
        assert await content_of(storage) == found
        if found is None:
            await storage.delete(
                KEY
            )  # a delete that was cut off is repeated, and then finds nothing but a label
        assert own_files(root) == ([], 0 if found is None else 1)
        await storage.close()
        if survived:
            break
    else:
        pytest.fail(f"the work did not get through within {MOST_STEPS} steps")

    assert steps > 3

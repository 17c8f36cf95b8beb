"""What is cut in a benchmark, made once and kept from run to run, and the store that holds it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from shared.storage.port import Storage, WriteOptions
from shared.storage.s3 import S3Storage
from spool.camera import Camera, Recording, extend, frame_numbers, record

FRAME_RATE = 30
# As the cameras that were measured for the goals: 1.6 Mbit/s with sound, closed groups of two seconds.
CAMERA = Camera(width=1280, height=720, gop_frames=60, b_frames=3, encoder_options=("-b:v", "1400k"))
MIB = 1 << 20
STEP_BYTES = 4 * MIB  # what a trip to a thread is worth
_CACHE = Path(__file__).resolve().parents[1] / "build" / "bench"


async def take_footage(duration_ms: int, camera: Camera = CAMERA, name: str = "footage") -> Recording:
    """Record what all sources are made of, unless an earlier run did."""

    async def film(made: Path) -> None:
        await record(made, start_ms=0, duration_ms=duration_ms, camera=camera)

    path = await made_once(f"{name}-{duration_ms}", film)
    return Recording(path, range(duration_ms * FRAME_RATE // 1000), 0, duration_ms)


async def repeated(footage: Recording, copies: int) -> Path:
    """Repeat the footage without encoding it, unless an earlier run did."""
    return await made_once(f"{footage.path.stem}-{copies}", lambda made: extend(footage, copies, made))


async def made_once(name: str, make: Callable[[Path], Awaitable[object]]) -> Path:
    """Return the MP4 of this name, which `make` writes unless an earlier run did."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    path = _CACHE / f"{name}.mp4"
    if not path.exists():
        made = path.with_suffix(".new.mp4")
        await make(made)
        made.replace(path)
    return path


@asynccontextmanager
async def stocked(files: Mapping[str, Path]) -> AsyncIterator[tuple[Storage, str]]:
    """Open a store of this run's own with these files under their keys; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        address = store_address(Path(directory))
        async with opened(address) as store:
            for key, path in files.items():
                await upload(store, path, key)
            try:
                yield store, address
            finally:
                async for stored in store.walk():
                    await store.delete(stored.key)


def store_address(directory: Path) -> str:
    """Return a place of this run's own on the S3 server, or in a directory."""
    bucket = os.environ.get("SPOOL_TEST_S3")
    if not bucket:
        return directory.as_uri()
    return urlsplit(bucket)._replace(path=f"/bench-{uuid4().hex}").geturl()


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Storage]:
    store: Storage
    if address.startswith("s3:"):
        store = await S3Storage.open(address, journal=None)
    else:
        root = Path(unquote(urlsplit(address).path))
        store = await FileStorage.open(root, public_url="", signing_key=b"", clock=SystemClock())
    try:
        yield store
    finally:
        await store.close()


async def upload(store: Storage, path: Path, key: str) -> None:
    with path.open("rb") as file:
        async with store.writer(key, WriteOptions(content_type="video/mp4")) as writer:
            while chunk := await asyncio.to_thread(file.read, STEP_BYTES):
                await writer.write(chunk)


async def download(store: Storage, key: str, path: Path) -> None:
    stored = await store.head(key)
    held: list[bytes] = []
    with path.open("wb") as file:
        async with store.read(key, end=stored.size_bytes, if_match=stored.etag) as chunks:
            async for chunk in chunks:
                held.append(chunk)
                if sum(map(len, held)) >= STEP_BYTES:
                    await asyncio.to_thread(file.writelines, held)
                    held.clear()
        file.writelines(held)


async def numbers_of(store: Storage, key: str) -> list[int]:
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        path = Path(directory) / "clip.mp4"
        await download(store, key, path)
        return await frame_numbers(path)

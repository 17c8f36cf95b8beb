"""Open what the command line works with by itself: a bucket, and a media engine over any store."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import imageio_ffmpeg
import structlog

from shared.media.engine import MediaEngine
from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Media
from shared.runtime.clock import SystemClock
from shared.settings.settings import Settings
from shared.storage.local import FileStorage
from shared.storage.port import Storage
from spool.place import S3Place

MEDIA_DIRECTORY = "media"  # of the embedded default: the objects, as ordinary files
FFMPEGS_AT_ONCE = 2  # one clip at a time: its decoder, and its encoder


def open_media(store: Storage) -> Media:
    """Return an engine over `store`."""
    ffmpeg = Ffmpeg(Path(imageio_ffmpeg.get_ffmpeg_exe()), at_once=FFMPEGS_AT_ONCE)
    return MediaEngine(store, ffmpeg)


@asynccontextmanager
async def open_media_directory(settings: Settings) -> AsyncIterator[Storage]:
    """Lend the embedded store of a data directory. Raises Unavailable."""
    root = settings.data_directory.absolute() / MEDIA_DIRECTORY
    # Nothing is signed here, so no key is needed, and no server that would honour it.
    store = await FileStorage.open(root, public_url="", signing_key=b"", clock=SystemClock())
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def open_bucket(place: S3Place) -> AsyncIterator[Storage]:
    """Lend the bucket that a place is in. Raises Refused for an address, Unavailable when nothing answers."""
    from shared.storage.s3 import S3Storage  # noqa: PLC0415 - takes a second to import; files need none of it

    # Without a database there is no journal: an upload that fails is aborted on the spot.
    bucket = await S3Storage.open(place.store, journal=None)
    try:
        with quiet_logs():
            yield bucket
    finally:
        await bucket.close()


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Log nothing but errors meanwhile: a command says itself what came of it, on the same terminal."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)

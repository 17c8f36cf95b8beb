"""Cut one file, on a disk or in a bucket, by the engine that the services use."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from shared.kernel.errors import Conflict, Corrupt, NotFound, Refused
from shared.media.port import ClipFile, Cut, Media, MediaInfo, Precision, Progress, SourceBroken
from shared.storage.port import Storage, WriteOptions
from spool.one_file import OneFile
from spool.opening import open_bucket, open_media
from spool.place import Place, S3Place
from spool.times import clock_text
from spool.two_places import RESULT, Slot, TwoPlaces

THUMBNAIL_PERCENT = 25  # of the clip's length, as the clipper does


@dataclass(frozen=True, slots=True)
class Order:
    """What to cut from where to where. Without `end_ms`, to the source's end; only `force` replaces files."""

    source: Place
    output: Place
    start_ms: int
    end_ms: int | None
    thumbnail: Path | None = None
    force: bool = False
    precision: Precision = Precision.EDIT_LIST


async def clip_file(order: Order, *, progress: Progress | None = None) -> ClipFile:
    """Carry out an order and return what was made, as measured.

    Whatever goes wrong, nothing half-written is left. Raises Refused, NotFound, Conflict and Corrupt in the
    words of the caller's own names, Unavailable and OSError.
    """
    _refuse_nonsense(order)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(_source(order.source))
        output = await stack.enter_async_context(_output(order, source.store))
        media = open_media(TwoPlaces(str(order.source), source, output))
        with _named(order.source):
            cut = _cut(order, await media.describe(str(order.source)))
            options = WriteOptions(content_type="video/mp4")
            clip = await media.cut(
                (cut,), into=RESULT, options=options, precision=order.precision, progress=progress
            )
        if order.thumbnail is not None:
            await _write_thumbnail(media, clip, order.thumbnail, force=order.force)
        return clip


async def describe_file(path: Path) -> MediaInfo:
    """Say what a local file holds. Raises NotFound, Refused or Corrupt, naming the file."""
    with _named(path):
        return await open_media(OneFile(path)).describe(str(path))


def _refuse_nonsense(order: Order) -> None:
    """Refuse what can be refused without opening anything for writing."""
    if order.end_ms is not None and order.end_ms <= order.start_ms:
        wrong = f"--to {clock_text(order.end_ms)} is not after --from {clock_text(order.start_ms)}"
        raise Refused(wrong, hint="a clip ends after it starts")
    if isinstance(order.source, Path):
        refuse_unreadable(order.source)
    if order.thumbnail is not None:
        _refuse_existing("--thumbnail", order.thumbnail, order)
    if isinstance(order.output, Path):
        _refuse_existing("-o", order.output, order)
        if order.thumbnail is not None and order.thumbnail.resolve() == order.output.resolve():
            raise Refused(f"--thumbnail and -o are the same file, {order.output}", hint="give two names")
    elif order.output == order.source:
        raise Refused(f"-o {order.output} is the source itself", hint="give another name")


def refuse_unreadable(source: Path) -> None:
    """Return if the file can be read. Raises NotFound, Refused or PermissionError."""
    if not source.exists():
        raise NotFound(f"{source} does not exist", hint="give the path of a recording, or s3://bucket/key")
    if not source.is_file():
        raise Refused(f"{source} is not a file", hint="give the path of a recording")
    with source.open("rb"):
        """Permission is found out now, and not half-way."""


def _refuse_existing(option: str, path: Path, order: Order) -> None:
    if isinstance(order.source, Path) and path.exists() and path.samefile(order.source):
        raise Refused(
            f"{option} {path} is the source itself", hint="the source is never written; give another name"
        )
    if path.is_dir():
        raise Refused(
            f"{option} {path} is a directory", hint=f"give a file name, such as {path / 'clip.mp4'}"
        )
    if path.exists() and not order.force:
        raise Conflict(
            f"{option} {path} already exists", hint="replace it with --force, or give another name"
        )
    if not path.parent.is_dir():
        raise NotFound(f"{option} {path}: the directory {path.parent} does not exist")


@asynccontextmanager
async def _source(place: Place) -> AsyncIterator[Slot]:
    if isinstance(place, Path):
        yield Slot(OneFile(place), str(place))
        return
    async with open_bucket(place) as bucket:
        with _named(place):
            await bucket.head(place.key)
        yield Slot(bucket, place.key)


@asynccontextmanager
async def _output(order: Order, source: Storage) -> AsyncIterator[Slot]:
    """Lend a place to write to; it gets its name only when the context ends well."""
    if isinstance(order.output, S3Place):
        # In the source's own store, which may copy by itself, wherever that is the same one.
        shared = isinstance(order.source, S3Place) and order.source.store == order.output.store
        opening = nullcontext(source) if shared else open_bucket(order.output)
        async with opening as bucket:
            await _refuse_existing_object(bucket, order.output, force=order.force)
            yield Slot(bucket, order.output.key)
        return
    with _scratch(order.output, force=order.force) as scratch:
        yield Slot(OneFile(scratch), RESULT)


async def _refuse_existing_object(bucket: Storage, place: S3Place, *, force: bool) -> None:
    if not force and await _is_there(bucket, place.key):
        raise Conflict(f"-o {place} already exists", hint="replace it with --force, or give another name")


async def _is_there(store: Storage, key: str) -> bool:
    try:
        await store.head(key)
    except NotFound:
        return False
    return True


@contextmanager
def _scratch(path: Path, *, force: bool) -> Iterator[Path]:
    """Lend a scratch file beside `path`; it gets that name when the context ends well, and else goes away."""
    target = path.resolve()  # a link that is replaced stays a link
    scratch = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        scratch.touch(exist_ok=False)  # whether that is allowed is found out before anything is read
        scratch.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield scratch
        _give_name(scratch, target, force=force)
    finally:
        scratch.unlink(missing_ok=True)


def _give_name(scratch: Path, target: Path, *, force: bool) -> None:
    if force:
        scratch.replace(target)
        return
    try:
        os.link(scratch, target)
    except FileExistsError as error:
        raise Conflict(f"{target} appeared meanwhile", hint="replace it with --force") from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        scratch.replace(target)  # a file system without hard links (FAT, some network shares)


def _cut(order: Order, info: MediaInfo) -> Cut:
    """Place the order on the source's own time. Raises Refused for what the source does not show."""
    if info.duration_ms == 0:
        return _cut_unmeasured(order, info)
    end_ms = info.duration_ms if order.end_ms is None else order.end_ms
    lasts = f"{order.source}, which lasts {clock_text(info.duration_ms)}"
    if order.start_ms >= info.duration_ms:
        raise Refused(
            f"--from {clock_text(order.start_ms)} is beyond the end of {lasts}", hint="start earlier"
        )
    if end_ms > info.duration_ms:
        beyond = f"--to {clock_text(end_ms)} is beyond the end of {lasts}"
        raise Refused(beyond, hint="leave --to out to cut to the end")
    return Cut(str(order.source), order.start_ms, end_ms)


def _cut_unmeasured(order: Order, info: MediaInfo) -> Cut:
    """Only an MP4 says beforehand how long it lasts; of others the engine finds out while it decodes."""
    if order.end_ms is None:
        unknown = f"{order.source}: how long {info.container} lasts is known only when it is decoded"
        raise Refused(unknown, hint="give --to")
    return Cut(str(order.source), order.start_ms, order.end_ms)


@contextmanager
def _named(source: Place) -> Iterator[None]:
    """Tell failures with the caller's name for the source."""
    try:
        yield
    except SourceBroken as error:
        named = error.message if str(source) in error.message else f"{source}: {error.message}"
        raise Corrupt(named, hint=error.hint) from error
    except NotFound as error:
        hint = "check the bucket and the key" if isinstance(source, S3Place) else None
        raise NotFound(f"{source} does not exist", hint=hint) from error


async def _write_thumbnail(media: Media, clip: ClipFile, path: Path, *, force: bool) -> None:
    at_ms = clip.duration_ms * THUMBNAIL_PERCENT // 100
    pictures = await media.thumbnails(RESULT, at_ms=at_ms, widths=(clip.width,)) if clip.width else ()
    if not pictures:
        raise Refused("--thumbnail: the clip has sound only", hint="leave --thumbnail out")
    with _scratch(path, force=force) as scratch:
        scratch.write_bytes(pictures[0].jpeg)

"""What has to be true of an installation when everything is over, however often its processes died."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from shared.database.tables import State, inbox, inbox_wake, outbox
from shared.events.envelope import Event
from shared.storage.local import FileStorage
from tests.anomaly.installation import CAMERA, Installation
from tests.anomaly.nursery import Nursery

THUMBNAILS = ("300", "640", "original")


async def faults(
    installation: Installation,
    requests: Sequence[Event],
    nursery: Nursery,
    *,
    answers: int = 1,
    swept: bool = False,
) -> list[str]:
    """Return what is wrong, in words. No Spool runs.

    `answers` is how often each request was to be answered at least: one that is made again is answered again.
    `swept`: Spool's own ticks had the time to sweep.
    """
    await installation.stranger.listen()
    if not swept:
        await installation.sweep()
    checks = (
        _objects(installation),
        _answers(installation, requests, answers),
        _clips(installation, requests),
        _work(installation),
        _uploads(installation),
        _processes(nursery),
    )
    return [fault for check in checks async for fault in check]


async def _objects(installation: Installation) -> AsyncIterator[str]:
    """Look for one clip and its pictures for each request ever made, and for anything else."""
    clip_ids = [str(request.subject) for request in installation.asked]
    expected = {f"clips/{CAMERA}/{clip_id}.mp4" for clip_id in clip_ids}
    expected |= {f"clips/{CAMERA}/{clip_id}_{size}.jpg" for clip_id in clip_ids for size in THUMBNAILS}
    found = {stored.key async for stored in installation.storage.walk("clips/")}
    if missing := expected - found:
        yield f"objects are missing: {sorted(missing)}"
    if more := found - expected:
        yield f"objects are too many: {sorted(more)}"


async def _answers(installation: Installation, requests: Sequence[Event], answers: int) -> AsyncIterator[str]:
    """Look whether every request was answered, always by the same event."""
    for request in requests:
        told = [event for event in installation.stranger.heard if event["subject"] == request.subject]
        if len(told) < answers:
            yield f"{request.subject} was told of {len(told)} times, and asked for {answers} times"
        if types := {event["type"] for event in told} - {"clip_available"}:
            yield f"{request.subject} was answered with {types}"
        if len(ids := {event["id"] for event in told}) > 1:
            yield f"{request.subject} was announced under {len(ids)} ids"


async def _clips(installation: Installation, requests: Sequence[Event]) -> AsyncIterator[str]:
    """Look whether each clip is the announced one, byte for byte, and shows exactly its frames."""
    for request in requests:
        told = [event["data"] for event in installation.stranger.heard if event["subject"] == request.subject]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "clip.mp4"
            content = await _content(installation, f"clips/{CAMERA}/{request.subject}.mp4")
            path.write_bytes(content)
            if not all(_declares(data["clip"], content) for data in told if "clip" in data):
                yield f"{request.subject} was announced as other bytes"
            start_ms, end_ms = request.data["startTimestampInMs"], request.data["endTimestampInMs"]
            if not await installation.footage.shows_exactly(path, start_ms, end_ms):
                yield f"{request.subject} shows other frames than those of its range"
        for size in THUMBNAILS:
            picture = await _content(installation, f"clips/{CAMERA}/{request.subject}_{size}.jpg")
            if not (picture.startswith(b"\xff\xd8\xff") and picture.endswith(b"\xff\xd9")):
                yield f"the thumbnail {size} of {request.subject} is no whole JPEG"


def _declares(clip: Mapping[str, Any], content: bytes) -> bool:
    """Return whether these are the announced bytes; of a clip that S3 put together only a CRC32 is told."""
    told = {name: clip[name] for name in ("sizeBytes", "sha256", "crc32") if name in clip}
    found = {
        "sizeBytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "crc32": f"{zlib.crc32(content):08x}",
    }
    return len(told) > 1 and told.items() <= found.items()


async def _work(installation: Installation) -> AsyncIterator[str]:
    """Look whether all work is done, none is dead, everything is told, and the queues are empty."""
    not_done = select(inbox.c.type, inbox.c.subject, inbox.c.state, inbox.c.attempt, inbox.c.reason).where(
        inbox.c.state != State.DONE
    )
    async with installation.database.read() as connection:
        for row in await connection.execute(not_done):
            yield f"work is not done: {tuple(row)}"
    if unsent := await installation.count(outbox, outbox.c.sent_ms.is_(None)):
        yield f"{unsent} events are not sent"
    if wakes := await installation.count(inbox_wake):
        yield f"{wakes} wake keys are registered for nobody"
    if waiting := await installation.stranger.waiting():
        yield f"{waiting} messages lie in Spool's queues"


async def _uploads(installation: Installation) -> AsyncIterator[str]:
    """Look for what was half-written: uploads, rows of the journal."""
    if left := await installation.storage.unfinished():
        yield f"unfinished uploads: {left}"
    if rows := await installation.journal.rows():
        yield f"the journal of uploads has rows: {rows}"
    if isinstance(installation.storage, FileStorage):
        for fault in _own_files(installation.directory / "media"):
            yield fault


def _own_files(root: Path) -> list[str]:
    """Return what a file store kept for itself and should not have, once its debris has aged."""
    left = [path for path in (root / ".spool-uploads").iterdir() if path.name != "lock"]
    for path in left:
        os.utime(path, (0, 0))
    labels = sum(path.is_file() for path in (root / ".spool-meta").rglob("*"))
    objects = sum(path.is_file() for path in (root / "clips").rglob("*"))
    objects += sum(path.is_file() for path in (root / "recordings").rglob("*"))
    found = [f"the file store kept {path.name}" for path in left if path.suffix != ".new"]
    if labels > objects:
        found.append(f"the file store kept {labels} labels of {objects} objects")
    return found


async def _processes(nursery: Nursery) -> AsyncIterator[str]:
    """Look for an ffmpeg that outlived its Spool."""
    if orphans := await nursery.orphans():
        yield f"processes were left alive: {orphans}"


async def _content(installation: Installation, key: str) -> bytes:
    async with installation.storage.read(key) as chunks:
        return b"".join([chunk async for chunk in chunks])

"""Damage MP4 files where their structure is, and do all with them that is done with an index."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.kernel.errors import Corrupt
from shared.media.announced import check_announced
from shared.media.copied import divide_pieces
from shared.media.mp4.boxes import walk
from shared.media.mp4.index import Indexes
from shared.media.mp4.movie import plan_movie, select_pictures
from shared.media.mp4.obstacles import lossless_obstacle
from shared.media.mp4.selection import CannotCopy
from shared.media.port import Cut
from shared.storage.local import FileStorage
from shared.storage.port import StoredObject
from spool.camera import Camera, record
from tests.media.studio import FixedClock, remux

KEY = "hostile.mp4"
SPANS_MS = ((100, 900), (1400, 1700))
FRAGMENTINGS = (
    "frag_keyframe",
    "frag_keyframe+empty_moov+delay_moov",
    "frag_keyframe+empty_moov+default_base_moof+global_sidx",
    "frag_keyframe+dash+delay_moov",
    "frag_every_frame+empty_moov+skip_trailer",
)
_CONTAINERS = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"mfra")
)
_INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    16,
    255,
    0x7FFF,
    0xFFFF,
    1 << 20,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFF,
)

Below = Callable[[int], int]  # chooses one of so many, from 0 on


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording to damage, and the places of its boxes' headers and of the bytes that are no media."""

    whole: bytes
    boxes: tuple[int, ...]
    structure: tuple[int, ...]


async def record_samples(directory: Path) -> list[Sample]:
    """Record two seconds as a progressive file, and fragmented in several ways."""
    plain, front = directory / "plain.mp4", directory / "front.mp4"
    camera = Camera(width=128, height=72, gop_frames=10)
    await record(plain, start_ms=0, duration_ms=2000, camera=camera)
    await record(front, start_ms=0, duration_ms=2000, camera=camera, faststart=True)
    paths = [plain, front]
    for number, flags in enumerate(FRAGMENTINGS):
        paths.append(directory / f"{number}.mp4")
        await remux(plain, flags, paths[-1])
    return [_sample(path.read_bytes()) for path in paths]


def _sample(whole: bytes) -> Sample:
    boxes: list[int] = []
    structure: list[int] = []
    waiting = [(0, len(whole))]
    while waiting:
        at, end = waiting.pop()
        for one in walk(memoryview(whole)[at:end]):
            size = 8 + len(one.payload)
            boxes.append(at)
            structure += range(at, at + 8 if one.kind == b"mdat" else at + size)
            if one.kind in _CONTAINERS:
                waiting.append((at + 8, at + size))
            at += size
    return Sample(whole, tuple(boxes), tuple(sorted(set(structure))))


def damaged(sample: Sample, below: Below) -> bytes:
    """Return the recording with up to four damages, most often one, as `below` chooses them."""
    changed = bytearray(sample.whole)
    for _ in range(1 + below(2) * below(4)):
        at = sample.structure[below(len(sample.structure))]
        _DAMAGES[below(len(_DAMAGES))](changed, sample, min(at, max(0, len(changed) - 8)), below)
    return bytes(changed)


def _set_byte(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    changed[at : at + 1] = bytes([below(256)])


def _set_number(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    changed[at : at + 4] = struct.pack(">I", _INTERESTING[below(len(_INTERESTING))])


def _set_size(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    box = sample.boxes[below(len(sample.boxes))]
    changed[box : box + 4] = struct.pack(">I", _INTERESTING[below(len(_INTERESTING))])


def _set_kind(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    one, other = (sample.boxes[below(len(sample.boxes))] for _ in range(2))
    changed[one + 4 : one + 8] = sample.whole[other + 4 : other + 8]


def _truncate(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    del changed[1 + below(len(sample.whole)) :]


def _remove(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    del changed[at : at + 1 + below(32)]


def _repeat(changed: bytearray, sample: Sample, at: int, below: Below) -> None:
    changed[at:at] = changed[at : at + 1 + below(600)]


_DAMAGES = (_set_byte, _set_number, _set_number, _set_size, _set_kind, _truncate, _remove, _repeat)


class MemoryStorage(FileStorage):
    """A store of one object, which nobody reads outside of."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, public_url="", signing_key=b"", clock=FixedClock())
        self.data = b""
        self._version = 0

    def put(self, data: bytes) -> None:
        self.data = data
        self._version += 1

    async def head(self, key: str) -> StoredObject:
        return StoredObject(key, len(self.data), str(self._version), 0)

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        assert end is not None
        assert 0 <= start < end <= len(self.data), f"bytes {start} to {end} of {len(self.data)} were read"
        yield _chunks(self.data[start:end])


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def read_and_plan(storage: MemoryStorage) -> str:
    """Do all that is done with an index, up to the header of a clip; returns what came of it.

    A source may be refused, or not be fit to be copied. Any other error is one of ours.
    """
    indexes, ends = Indexes(storage), set()
    for start_ms, end_ms in SPANS_MS:
        cut = Cut(KEY, start_ms, end_ms)
        try:
            index = await indexes.load(KEY, (start_ms, end_ms))
            check_announced(index, cut)
            pieces, cuts = divide_pieces([index], [cut])
            if lossless_obstacle(pieces) is None:
                movies = [piece.movie for piece in pieces if piece.movie is not None]
                plan_movie(movies, cuts, select_pictures(movies, cuts))
                ends.add("planned")
            else:
                ends.add("not to be copied")
        except Corrupt:
            ends.add("refused")
        except CannotCopy:
            ends.add("not to be copied")
    return " and ".join(sorted(ends))

"""What a clip's container keeps of its source, and what happens around the writing of it."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace

import numpy as np
import pytest

from shared.kernel.errors import Transient, Unavailable
from shared.media.mp4.boxes import walk
from shared.media.mp4.index import HEAD_BYTES, read_index
from shared.media.mp4.movie import plan_movie, select_pictures
from shared.media.mp4.tables import SampleTable
from shared.media.mp4.tracks import Movie, Track, read_movie
from shared.media.port import Cut
from shared.storage.port import WriteOptions
from spool.camera import frame_numbers
from tests.media.conftest import Library
from tests.media.studio import Studio

GIB = 1 << 30
QUARTER_TURN = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 320 << 16, 0, 1 << 30)
NO_TURN = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


async def movie_of(studio: Studio, key: str) -> Movie:
    index = await read_index(studio.storage, await studio.storage.head(key))
    assert index.movie is not None
    return index.movie


def video_of(movie: Movie) -> Track:
    assert movie.video is not None
    return movie.video


async def test_a_turned_source_gives_a_turned_clip(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    whole = recording.path.read_bytes()
    at = whole.index(NO_TURN, whole.index(b"tkhd"))
    studio.path("turned.mp4").write_bytes(whole[:at] + QUARTER_TURN + whole[at + len(QUARTER_TURN) :])

    await studio.cut(Cut("turned.mp4", 1000, 2000))

    assert video_of(await movie_of(studio, "clip.mp4")).matrix == QUARTER_TURN


async def test_sample_entries_are_kept_byte_for_byte(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    key = studio.add(recording.path)

    await studio.cut(Cut(key, 1000, 2000))

    source, clip = await movie_of(studio, key), await movie_of(studio, "clip.mp4")
    assert [track.entry.raw for track in clip.tracks] == [track.entry.raw for track in source.tracks]


async def test_media_behind_a_64_bit_size_is_found(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    whole = recording.path.read_bytes()
    # ffmpeg leaves an empty box before `mdat` so that its size can grow to 64 bits.
    at = whole.index(b"\0\0\0\x08free")
    (size_bytes,) = struct.unpack_from(">I", whole, at + 8)
    large = struct.pack(">I4sQ", 1, b"mdat", size_bytes + 8)
    studio.path("large.mp4").write_bytes(whole[:at] + large + whole[at + 16 :])

    await studio.cut(Cut("large.mp4", 1000, 2000))

    assert await frame_numbers(studio.path("clip.mp4")) == list(range(30, 60))


async def test_a_clip_beyond_4_gib_has_64_bit_offsets_and_sizes(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    movie = await movie_of(studio, studio.add(recording.path))
    huge = replace(
        movie, video=replace(video_of(movie), samples=_enlarged(video_of(movie).samples)), audio=None
    )

    cuts = [Cut("huge.mp4", 0, 8000)]

    plan = plan_movie([huge], cuts, select_pictures([huge], cuts))

    moov = next(box for box in walk(memoryview(plan.header[:-16])) if box.kind == b"moov")
    again = video_of(read_movie(moov.payload, object_bytes=plan.size_bytes)).samples
    kind, size_bytes = struct.unpack(">4xIQ", plan.header[-16:])[0:2]
    assert plan.size_bytes > 200 * GIB
    assert (kind.to_bytes(4, "big"), size_bytes) == (b"mdat", plan.size_bytes - len(plan.header) + 16)
    assert again.offsets[0] == len(plan.header)
    assert again.offsets[-1] + again.sizes[-1] == plan.size_bytes


def _enlarged(samples: SampleTable) -> SampleTable:
    sizes = np.full(len(samples), GIB, np.uint32)
    return replace(samples, sizes=sizes, offsets=np.arange(len(samples), dtype=np.int64) * GIB)


async def test_the_index_at_the_end_is_read_with_little_else(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    stored = await studio.storage.head(studio.add(recording.path))
    whole = recording.path.read_bytes()

    index = await read_index(studio.storage, stored)

    assert index.bytes_read == HEAD_BYTES + len(whole) - (whole.rindex(b"moov") - 4)


async def test_two_who_write_the_same_clip_end_with_one_object(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    key = studio.add(recording.path)

    clips = await asyncio.gather(*(studio.cut(Cut(key, 1000, 5000)) for _ in range(3)))

    assert len({(clip.sha256, clip.stored.etag) for clip in clips}) == 1
    assert sorted(clip.adopted for clip in clips) == [False, True, True]


async def test_who_may_no_longer_write_leaves_nothing(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    key = studio.add(recording.path)

    async def refuse() -> None:
        raise Unavailable("the lease was lost")

    with pytest.raises(Unavailable, match="the lease was lost"):
        await studio.engine.cut(
            [Cut(key, 1000, 5000)], into="clip.mp4", options=WriteOptions(before_completion=refuse)
        )

    assert not studio.path("clip.mp4").exists()
    assert await studio.storage.unfinished() == []


async def test_a_source_that_is_replaced_meanwhile_is_tried_again_later(
    studio: Studio, library: Library
) -> None:
    first, second = await library.pair()
    key = studio.add(first.path)
    stored = await studio.storage.head(key)
    studio.path(key).unlink()
    studio.path(key).write_bytes(second.path.read_bytes())

    with pytest.raises(Transient, match="replaced while it was read"):
        await read_index(studio.storage, stored)

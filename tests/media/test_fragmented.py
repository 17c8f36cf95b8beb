"""Fragmented recordings are cut without encoding, and of a long one little is read."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from shared.media.mp4.boxes import box, full_box, walk
from shared.media.mp4.index import Indexes
from shared.media.mp4.tables import SampleTable
from shared.media.port import Cut, SourceBroken
from shared.storage.local import FileStorage
from spool.camera import Camera, extend, frame_numbers
from tests.media.conftest import SECONDS, SMALL, Library
from tests.media.studio import (
    FixedClock,
    Studio,
    beep_onsets_ms,
    frames_between,
    remux,
    seconds_between,
    sound,
)

WHOLE_MS = SECONDS * 1000
BEEP_EARLY_MS = 4
LARGE = Camera(width=640, height=360, gop_frames=60, encoder_options=("-b:v", "1600k"))
NO_SOUND = replace(LARGE, sound=False)
KEY_FRAMES = "frag_keyframe+empty_moov+delay_moov"


@dataclass(frozen=True, slots=True)
class Fragmenting:
    """How ffmpeg fragments, and how much later than recorded such a file shows its pictures and its sound."""

    flags: str
    late_frames: int = 0
    sound_late_ms: int = 0


# Without `delay_moov` there is no edit list that takes away what B-frames and the sound's run-up need.
FLAGS = [
    pytest.param(Fragmenting("frag_keyframe", 2, 67), id="the first fragment in the index"),
    pytest.param(Fragmenting(KEY_FRAMES), id="a fragment for each key frame"),
    pytest.param(Fragmenting("frag_every_frame+empty_moov+delay_moov"), id="a fragment for each frame"),
    pytest.param(Fragmenting(KEY_FRAMES + "+default_base_moof"), id="offsets from the fragment"),
    pytest.param(
        Fragmenting(KEY_FRAMES + "+default_base_moof+separate_moof"), id="a fragment for each track"
    ),
    pytest.param(Fragmenting(KEY_FRAMES + "+default_base_moof+global_sidx"), id="a segment index for all"),
    pytest.param(Fragmenting("frag_keyframe+dash+delay_moov"), id="a segment index for each"),
    pytest.param(
        Fragmenting("frag_keyframe+dash+skip_trailer+delay_moov"),
        id="a segment index for each, none at the end",
    ),
    pytest.param(Fragmenting("frag_keyframe+dash+global_sidx", 2, 67), id="a segment index, and no edits"),
    pytest.param(Fragmenting("cmaf+frag_keyframe+delay_moov"), id="CMAF"),
    pytest.param(Fragmenting(KEY_FRAMES + "+omit_tfhd_offset"), id="offsets that are not said"),
    pytest.param(
        Fragmenting("frag_keyframe+empty_moov+negative_cts_offsets", 0, 21), id="shown before it is decoded"
    ),
    pytest.param(Fragmenting(KEY_FRAMES + "+skip_trailer"), id="nothing says where they lie"),
]
SPANS = [pytest.param((1234, 5679), id="inside"), pytest.param((0, WHOLE_MS), id="everything")]


@pytest.mark.parametrize("fragmenting", FLAGS)
@pytest.mark.parametrize("span", SPANS)
async def test_a_clip_of_fragments_shows_exactly_the_frames_of_its_time(
    studio: Studio, library: Library, fragmenting: Fragmenting, span: tuple[int, int]
) -> None:
    recording, _ = await library.pair()
    await remux(recording.path, fragmenting.flags, studio.path("source.mp4"))

    clip = await studio.cut(Cut("source.mp4", *span))

    wanted = frames_between(*span, SMALL.frame_rate)
    shown = [number - fragmenting.late_frames for number in wanted if number >= fragmenting.late_frames]
    assert clip.reencoded_because is None
    assert await frame_numbers(studio.path("clip.mp4")) == shown
    assert (clip.video_frames, clip.duration_ms) == (len(shown), span[1] - span[0])


@pytest.mark.parametrize("fragmenting", FLAGS)
async def test_the_sound_of_a_clip_of_fragments_is_in_place(
    studio: Studio, library: Library, fragmenting: Fragmenting
) -> None:
    recording, _ = await library.pair()
    await remux(recording.path, fragmenting.flags, studio.path("source.mp4"))

    await studio.cut(Cut("source.mp4", 1234, 5679))

    onsets = beep_onsets_ms(await sound(studio.path("clip.mp4")))
    late_ms = fragmenting.sound_late_ms - BEEP_EARLY_MS // 2
    assert onsets == pytest.approx(
        [moment_ms + late_ms for moment_ms in seconds_between(1234, 5679)], abs=BEEP_EARLY_MS
    )


def key_frames(samples: SampleTable) -> list[int] | None:
    return None if samples.sync is None else samples.sync.tolist()


async def test_fragments_give_the_tables_of_a_progressive_file(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path, "progressive.mp4")
    await remux(recording.path, KEY_FRAMES, studio.path("fragmented.mp4"))
    indexes = Indexes(studio.storage)

    progressive = (await indexes.load("progressive.mp4")).movie
    fragmented = (await indexes.load("fragmented.mp4", (0, WHOLE_MS))).movie

    assert progressive is not None
    assert fragmented is not None
    assert fragmented.duration_ms == progressive.duration_ms
    for found, wanted in zip(fragmented.tracks, progressive.tracks, strict=True):
        assert np.array_equal(found.samples.decode_ticks, wanted.samples.decode_ticks)
        assert np.array_equal(found.samples.shown_ticks, wanted.samples.shown_ticks)
        assert np.array_equal(found.samples.sizes, wanted.samples.sizes)
        assert key_frames(found.samples) == key_frames(wanted.samples)


class WatchedStorage(FileStorage):
    """A store that remembers which ranges were read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, public_url="", signing_key=b"", clock=FixedClock())
        self.ranges: list[tuple[int, int | None]] = []

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.ranges.append((start, end))
        async with super().read(key, start=start, end=end, if_match=if_match) as chunks:
            yield chunks

    @property
    def longest_bytes(self) -> int:
        return max((end or 1 << 62) - start for start, end in self.ranges)


LONG_COPIES = 30
LISTED = [
    pytest.param(KEY_FRAMES + "+default_base_moof+global_sidx", 22, 130_000, id="sidx"),
    pytest.param(KEY_FRAMES, 22, 200_000, id="mfra"),
    # Four minutes have 120 fragments: each is looked at once.
    pytest.param(KEY_FRAMES + "+skip_trailer", 130, 650_000, id="nothing"),
]


@pytest.mark.parametrize(("flags", "most_reads", "most_bytes"), LISTED)
async def test_of_a_long_recording_few_headers_are_read(
    studio: Studio, library: Library, flags: str, most_reads: int, most_bytes: int
) -> None:
    recording, _ = await library.pair(LARGE)
    await extend(recording, LONG_COPIES, studio.path("long.mp4"))
    await remux(studio.path("long.mp4"), flags, studio.path("source.mp4"))
    storage = WatchedStorage(studio.directory)
    indexes = Indexes(storage)

    first = await indexes.load("source.mp4", (121_234, 141_234))
    reads = len(storage.ranges)
    again = await indexes.load("source.mp4", (125_000, 140_000))

    assert reads <= most_reads
    assert first.bytes_read <= most_bytes
    assert storage.longest_bytes <= 64 * 1024
    assert (again.bytes_read, len(storage.ranges)) == (0, reads)
    assert first.movie is not None
    assert first.movie.duration_ms == pytest.approx(LONG_COPIES * WHOLE_MS, abs=50)
    await storage.close()


async def test_a_clip_out_of_a_long_fragmented_recording_reads_hardly_more_than_itself(
    studio: Studio, library: Library
) -> None:
    recording, _ = await library.pair(LARGE)
    await extend(recording, LONG_COPIES, studio.path("long.mp4"))
    await remux(studio.path("long.mp4"), KEY_FRAMES, studio.path("source.mp4"))

    clip = await studio.cut(Cut("source.mp4", 121_234, 181_234))

    assert clip.reencoded_because is None
    assert clip.source_bytes_read / clip.stored.size_bytes < 1.1
    assert clip.video_frames == 1800


LONG = [
    pytest.param("frag_every_frame+empty_moov+delay_moov", id="a fragment for each frame"),
    pytest.param(KEY_FRAMES + "+separate_moof", id="a fragment for each track"),
    pytest.param(KEY_FRAMES + "+default_base_moof+global_sidx", id="a segment index"),
]


@pytest.mark.parametrize("flags", LONG)
async def test_a_part_of_a_long_fragmented_recording_has_its_frames_and_its_sound(
    studio: Studio, library: Library, flags: str
) -> None:
    recording, _ = await library.pair(LARGE)
    await extend(recording, 8, studio.path("long.mp4"))
    await remux(studio.path("long.mp4"), flags, studio.path("source.mp4"))

    for number, (start_ms, end_ms) in enumerate([(34_567, 37_000), (33_100, 34_300), (57_100, 61_100)]):
        clip = await studio.cut(Cut("source.mp4", start_ms, end_ms), into=f"{number}.mp4")

        wanted = [frame % 240 for frame in frames_between(start_ms, end_ms, LARGE.frame_rate)]
        assert clip.reencoded_because is None
        assert await frame_numbers(studio.path(f"{number}.mp4")) == wanted
        # The beep of a copy's first second lies on a joint, where the frame before it fades out.
        beeps = [start for start in seconds_between(start_ms, end_ms) if (start + start_ms) % WHOLE_MS]
        onsets = beep_onsets_ms(await sound(studio.path(f"{number}.mp4")))
        for beep_ms in beeps:
            assert min(abs(onset - beep_ms) for onset in onsets) <= 11 + BEEP_EARLY_MS


def renamed(kind: bytes, into: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: whole.replace(kind, into)


def with_wrong_sidx(whole: bytes) -> bytes:
    """Let the first segment index say that each fragment is two bytes longer."""
    at = whole.index(b"sidx") + 36
    (count,) = struct.unpack_from(">H", whole, at - 2)
    changed = bytearray(whole)
    for row in range(count):
        (size,) = struct.unpack_from(">I", whole, at + 12 * row)
        struct.pack_into(">I", changed, at + 12 * row, size + 2)
    return bytes(changed)


def with_wrong_mfra(whole: bytes) -> bytes:
    """Let the index at the end say that each fragment starts two bytes later."""
    at = whole.index(b"tfra") + 4
    (count,) = struct.unpack_from(">I", whole, at + 12)
    changed = bytearray(whole)
    for row in range(count):
        place = at + 16 + 19 * row + 8
        struct.pack_into(">Q", changed, place, struct.unpack_from(">Q", whole, place)[0] + 2)
    return bytes(changed)


def hours_later(whole: bytes) -> bytes:
    """Move every fragment three hours on, as in a recording that is a part of a longer one."""
    changed, at = bytearray(whole), 0
    timescales = {1: 15360, 2: 48000}
    while (at := whole.find(b"tfhd", at + 1)) >= 0:
        (track,) = struct.unpack_from(">I", whole, at + 8)
        tfdt = whole.index(b"tfdt", at) + 8
        (ticks,) = struct.unpack_from(">Q", whole, tfdt)
        struct.pack_into(">Q", changed, tfdt, ticks + 3 * 3600 * timescales[track])
    return bytes(changed)


def in_two_levels(whole: bytes) -> bytes:
    """Replace the segment index by one that points to two others, each in front of what it describes."""
    boxes = [(one.kind, bytes(one.payload)) for one in walk(memoryview(whole))]
    at = [kind for kind, _ in boxes].index(b"sidx")
    payload = boxes[at][1]
    timescale, (count,) = payload[8:12], struct.unpack_from(">H", payload, 30)
    rows = [struct.unpack_from(">III", payload, 32 + 12 * row) for row in range(count)]
    fragments = b"".join(box(kind, data) for kind, data in boxes[at:] if kind in (b"moof", b"mdat"))
    references: list[tuple[int, ...]] = []
    start, parts = 0, b""
    for half in (rows[: count // 2], rows[count // 2 :]):
        size, ticks = sum(row[0] for row in half), sum(row[1] for row in half)
        inner = _sidx(timescale, sum(row[1] for row in rows[: count // 2]) if references else 0, half)
        parts += inner + fragments[start : start + size]
        references.append((1 << 31 | len(inner) + size, ticks, 1 << 31))
        start += size
    front = b"".join(box(kind, data) for kind, data in boxes[:at])
    return front + _sidx(timescale, 0, references) + parts


def _sidx(timescale: bytes, start: int, rows: Sequence[tuple[int, ...]]) -> bytes:
    fields = struct.pack(">I4sQQHH", 1, timescale, start, 0, 0, len(rows))
    return full_box(b"sidx", 1, 0, fields, *(struct.pack(">III", *row) for row in rows))


SIDX = KEY_FRAMES + "+default_base_moof+global_sidx"
CHANGED = [
    pytest.param(SIDX, with_wrong_sidx, id="a segment index that is wrong"),
    pytest.param(KEY_FRAMES, with_wrong_mfra, id="an index at the end that is wrong"),
    pytest.param(SIDX, in_two_levels, id="segment indexes in two levels"),
    pytest.param(SIDX, hours_later, id="the clock of a longer recording, and segment indexes"),
    pytest.param(KEY_FRAMES, hours_later, id="the clock of a longer recording"),
    pytest.param(KEY_FRAMES, renamed(b"tfdt", b"free"), id="no decode times in the fragments"),
    pytest.param(SIDX, lambda whole: whole + box(b"free", bytes(99)), id="something behind the fragments"),
]


@pytest.mark.parametrize(("flags", "change"), CHANGED)
@pytest.mark.parametrize("span", [(1234, 5679), (4000, 6000)])
async def test_whatever_lists_the_fragments_the_frames_are_the_same(
    studio: Studio,
    library: Library,
    flags: str,
    change: Callable[[bytes], bytes],
    span: tuple[int, int],
) -> None:
    recording, _ = await library.pair(NO_SOUND if change is in_two_levels else LARGE)
    await remux(recording.path, flags, studio.path("ffmpeg.mp4"))
    studio.path("source.mp4").write_bytes(change(studio.path("ffmpeg.mp4").read_bytes()))

    clip = await studio.cut(Cut("source.mp4", *span))

    assert clip.reencoded_because is None
    assert await frame_numbers(studio.path("clip.mp4")) == frames_between(*span, SMALL.frame_rate)


def with_open_end(whole: bytes) -> bytes:
    """Let the last fragment's media reach to the end of the file, as a live recorder writes it."""
    at = whole.rindex(b"mdat") - 4
    return whole[:at] + bytes(4) + whole[at + 4 :]


TRUNCATED = [
    pytest.param(lambda whole: whole[:-5000], 200, id="in the media of the last fragment"),
    pytest.param(lambda whole: with_open_end(whole)[:-5000], 200, id="in media without an end"),
    pytest.param(lambda whole: whole[: whole.rindex(b"mdat") + 4], 200, id="before the media"),
    pytest.param(lambda whole: whole[: whole.rindex(b"moof") + 60], 200, id="in the last fragment's header"),
    pytest.param(lambda whole: whole[: whole.rindex(b"moof") - 1], 200, id="between two fragments"),
    pytest.param(with_open_end, 240, id="nowhere: media without an end"),
]


@pytest.mark.parametrize(("truncate", "frames"), TRUNCATED)
async def test_the_whole_fragments_of_a_truncated_recording_are_used(
    studio: Studio, library: Library, truncate: Callable[[bytes], bytes], frames: int
) -> None:
    recording, _ = await library.pair()
    await remux(recording.path, KEY_FRAMES + "+skip_trailer", studio.path("whole.mp4"))
    studio.path("source.mp4").write_bytes(truncate(studio.path("whole.mp4").read_bytes()))
    end_ms = frames * 1000 // 30

    clip = await studio.cut(Cut("source.mp4", 2000, end_ms))

    assert await frame_numbers(studio.path("clip.mp4")) == list(range(60, frames))
    assert clip.reencoded_because is None
    with pytest.raises(SourceBroken, match="ends early") as early:
        await studio.cut(Cut("source.mp4", 2000, end_ms + 500), into="longer.mp4")
    assert ("its last fragment is incomplete" in early.value.message) == (frames < 240)

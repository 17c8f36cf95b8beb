"""A source whose edit list shows it in several parts is cut as it is shown, without encoding."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from shared.media.mp4.boxes import box, full_box, walk
from shared.media.mp4.edits import divide
from shared.media.mp4.selection import CannotCopy
from shared.media.mp4.tracks import read_movie
from shared.media.port import Cut
from spool.camera import frame_numbers
from tests.media.conftest import Library
from tests.media.studio import Studio, beep_onsets_ms, sound

BEEP_EARLY_MS = 4
NESTED = (b"moov", b"trak")

# (milliseconds, shown from which millisecond of the recording); None: nothing is shown.
Edits = Sequence[tuple[int, int | None]]


def shown_in(recording: bytes, edits: Edits, *, timescale: int = 1000) -> bytes:
    """Return a recording (`moov` last) with another edit list in both tracks."""
    parts = [(one.kind, bytes(one.payload)) for one in walk(memoryview(recording))]
    return b"".join(_rewritten(kind, payload, edits, timescale) for kind, payload in parts)


def _rewritten(kind: bytes, payload: bytes, edits: Edits, timescale: int) -> bytes:
    if kind == b"mvhd":
        payload = payload[:12] + struct.pack(">I", timescale) + payload[16:]
    if kind not in NESTED:
        return box(kind, payload)
    inner = {one.kind: bytes(one.payload) for one in walk(memoryview(payload)) if kind == b"trak"}
    media_timescale = next((_timescale(mdia) for each, mdia in inner.items() if each == b"mdia"), 0)
    parts = [(one.kind, bytes(one.payload)) for one in walk(memoryview(payload))]
    return box(
        kind,
        *(
            box(b"edts", _elst(old, edits, media_timescale, timescale))
            if each == b"edts"
            else _rewritten(each, old, edits, timescale)
            for each, old in parts
        ),
    )


def _timescale(mdia: bytes) -> int:
    mdhd = next(one.payload for one in walk(memoryview(mdia)) if one.kind == b"mdhd")
    return int(struct.unpack_from(">I", mdhd, 12)[0])


def _elst(edts: bytes, edits: Edits, media_timescale: int, timescale: int) -> bytes:
    (start,) = struct.unpack_from(">i", edts, 8 + 8 + 4)  # where the recording's own only edit starts
    rows = [
        struct.pack(
            ">IiI",
            duration_ms * timescale // 1000,
            -1 if from_ms is None else start + from_ms * media_timescale // 1000,
            1 << 16,
        )
        for duration_ms, from_ms in edits
    ]
    return full_box(b"elst", 0, 0, struct.pack(">I", len(rows)), *rows)


def numbers(start_ms: int, end_ms: int) -> list[int]:
    return list(range(-(-start_ms * 30 // 1000), -(-end_ms * 30 // 1000)))


SKIPPING = ((500, None), (1500, 0), (2000, 4000))  # half a second of nothing, then media is skipped
REPEATING = ((2000, 5000), (1000, 1000), (1000, 1000))
ENDING = ((3000, 1000), (1000, None))
CUTS = [
    pytest.param(SKIPPING, (0, 4000), numbers(0, 1500) + numbers(4000, 6000), id="everything"),
    pytest.param(SKIPPING, (1000, 3000), numbers(500, 1500) + numbers(4000, 5000), id="across a joint"),
    pytest.param(SKIPPING, (2500, 3500), numbers(4500, 5500), id="behind it"),
    pytest.param(SKIPPING, (0, 1000), numbers(0, 500), id="before it"),
    pytest.param(
        REPEATING, (1000, 3500), numbers(6000, 7000) + numbers(1000, 2000) + numbers(1000, 1500), id="twice"
    ),
    pytest.param(ENDING, (1000, 3500), numbers(2000, 4000), id="nothing at the end"),
]


@pytest.mark.parametrize(("edits", "span", "wanted"), CUTS)
async def test_a_source_of_several_edits_is_cut_as_it_is_shown(
    studio: Studio, library: Library, edits: Edits, span: tuple[int, int], wanted: list[int]
) -> None:
    recording, _ = await library.pair()
    studio.path("source.mp4").write_bytes(shown_in(recording.path.read_bytes(), edits))

    clip = await studio.cut(Cut("source.mp4", *span))

    assert clip.reencoded_because is None
    assert await frame_numbers(studio.path("clip.mp4")) == wanted
    assert (clip.video_frames, clip.duration_ms) == (len(wanted), span[1] - span[0])


async def test_the_sound_follows_the_edits(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.path("source.mp4").write_bytes(shown_in(recording.path.read_bytes(), ((1700, 0), (2000, 4300))))

    await studio.cut(Cut("source.mp4", 500, 3700))

    # Beeps at 1000 of the first part, and at 5000 and 6000 of the second, which starts 1200 ms into the clip.
    onsets = beep_onsets_ms(await sound(studio.path("clip.mp4")))
    assert onsets == pytest.approx([498, 1898, 2898], abs=11 + BEEP_EARLY_MS)


async def test_a_clip_with_several_edits_is_a_source_like_any_other(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    key = studio.add(recording.path)
    await studio.cut(Cut(key, 5000, 6500), Cut(key, 1100, 3100), into="first.mp4")

    clip = await studio.cut(Cut("first.mp4", 1000, 2500), into="second.mp4")

    assert clip.reencoded_because is None
    assert await frame_numbers(studio.path("second.mp4")) == numbers(6000, 6500) + numbers(1100, 2100)


@pytest.mark.parametrize(
    ("edits", "timescale", "reason"),
    [
        pytest.param(((1002, 0), (998, 3000)), 600, "between two milliseconds", id="between milliseconds"),
        pytest.param(((10, 0), (10, 1000)) * 300, 1000, "too many edits", id="too many"),
    ],
)
async def test_edits_that_cannot_be_followed_are_said(
    library: Library, edits: Edits, timescale: int, reason: str
) -> None:
    recording, _ = await library.pair()
    source = shown_in(recording.path.read_bytes(), edits, timescale=timescale)
    moov = next(one.payload for one in walk(memoryview(source)) if one.kind == b"moov")
    movie = read_movie(moov, object_bytes=len(source))

    with pytest.raises(CannotCopy, match=reason):
        divide(movie, Cut("source.mp4", 0, 1800))

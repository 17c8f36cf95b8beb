"""Sources that are not what they claim to be: each is named, none of them does harm."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.kernel.errors import SpoolError
from shared.media.announced import check_announced
from shared.media.mp4.boxes import box, walk
from shared.media.mp4.index import SourceIndex
from shared.media.mp4.movie import plan_movie, select_pictures
from shared.media.mp4.obstacles import lossless_obstacle
from shared.media.mp4.selection import CannotCopy
from shared.media.mp4.tracks import read_movie
from shared.media.port import Cut, SourceBroken
from shared.media.sniff import MP4
from shared.storage.port import StoredObject
from spool.camera import Camera, record
from tests.media.conftest import SMALL, Library
from tests.media.studio import Studio

FTYP = box(b"ftyp", b"isom", bytes(4), b"isom")


def moov_of(recording: bytes) -> bytes:
    """Return the payload of a recording's `moov`."""
    return next(bytes(one.payload) for one in walk(memoryview(recording)) if one.kind == b"moov")


def with_moov(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a way to damage a recording: its `moov` is changed, the rest is as it was."""

    def damage(recording: bytes) -> bytes:
        moov = box(b"moov", moov_of(recording))
        return recording.replace(moov, change(moov))

    return damage


def overwritten(kind: bytes, at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Return a way to damage a recording: `value` is put `at` bytes into the first such box of `moov`."""

    def change(moov: bytes) -> bytes:
        place = moov.index(kind) + len(kind) + at
        return moov[:place] + value + moov[place + len(value) :]

    return with_moov(change)


MANY = struct.pack(">I", 0xFFFFFFF0)
BAD = [
    pytest.param(lambda _: b"", "is empty", id="empty"),
    pytest.param(lambda _: b"not a recording at all\n" * 50, "is a text file", id="text"),
    pytest.param(
        lambda _: "keine Aufnahme, schöner Text\n".encode() * 50, "is a text file", id="text in UTF-8"
    ),
    pytest.param(
        lambda _: b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\nhttp://127.0.0.1/\n",
        "is a playlist",
        id="playlist",
    ),
    pytest.param(lambda _: bytes(range(256)) * 64, "is not media", id="noise"),
    pytest.param(lambda whole: whole[: len(whole) // 2], "truncated", id="cut off in the middle"),
    pytest.param(lambda whole: whole[:-100], "truncated", id="cut off in the index"),
    pytest.param(lambda whole: whole[:1000], "truncated", id="only its beginning"),
    pytest.param(lambda whole: whole[:20], "ends inside of a box|truncated", id="twenty bytes"),
    pytest.param(lambda _: FTYP, "has no index", id="nothing but its type"),
    pytest.param(with_moov(lambda moov: box(b"free", moov[8:])), "has no index", id="no index"),
    pytest.param(lambda _: FTYP + struct.pack(">I4sQ", 1, b"mdat", 1 << 62), "truncated", id="huge box"),
    pytest.param(
        lambda _: FTYP + struct.pack(">I4s", 4, b"free") * 99, "4 bytes long", id="box inside of itself"
    ),
    pytest.param(
        lambda _: FTYP + struct.pack(">I4sQ", 1, b"free", 3) * 99, "3 bytes long", id="large, and tiny"
    ),
    pytest.param(
        lambda _: FTYP + box(b"free", bytes(40_000)) * 40,
        "behind too many boxes|no index",
        id="endless boxes",
    ),
    pytest.param(lambda _: FTYP + box(b"moov", bytes(80 << 20)), "83886080|bytes long", id="moov bomb"),
    pytest.param(lambda _: FTYP + box(b"moov"), "'mvhd' is missing", id="empty index"),
    pytest.param(
        overwritten(b"stsz", 8, MANY), "declares 4294967280 samples", id="four thousand million samples"
    ),
    pytest.param(overwritten(b"stsz", 4, b"\0\0\0\1" + MANY), "declares", id="and a byte each"),
    pytest.param(overwritten(b"stts", 4, MANY), "declares 4294967280 rows", id="stts longer than its box"),
    pytest.param(overwritten(b"stts", 8, bytes(4)), "fewer decode times", id="too few decode times"),
    pytest.param(overwritten(b"stsc", 8, MANY), "out of order", id="stsc starts late"),
    pytest.param(overwritten(b"stsc", 12, MANY), "more samples than there are", id="a chunk of all there is"),
    pytest.param(
        overwritten(b"stco", 8, MANY), "beyond the end of the file", id="chunks outside of the file"
    ),
    pytest.param(overwritten(b"mdhd", 12, bytes(4)), "time scale is zero", id="no time scale"),
    pytest.param(overwritten(b"mvhd", 12, bytes(4)), "time scale is zero", id="no time scale of the movie"),
    pytest.param(overwritten(b"url ", 0, bytes(4)), "another file", id="samples in another file"),
    pytest.param(overwritten(b"elst", 4, MANY), "edits", id="endless edits"),
    pytest.param(overwritten(b"trak", -8, MANY), "reaches beyond", id="a track larger than its parent"),
]


@pytest.mark.parametrize(("damage", "reason"), BAD)
async def test_a_bad_source_is_named_and_does_no_harm(
    studio: Studio, library: Library, damage: Callable[[bytes], bytes], reason: str
) -> None:
    recording, _ = await library.pair()
    good = studio.add(recording.path, "good.mp4")
    studio.path("bad.mp4").write_bytes(damage(recording.path.read_bytes()))

    with pytest.raises(SourceBroken, match=reason) as broken:
        await studio.cut(Cut(good, 0, 1000), Cut("bad.mp4", 0, 1000))

    assert broken.value.source_key == "bad.mp4"
    assert "bad.mp4" in str(broken.value)
    assert not studio.path("clip.mp4").exists()
    assert (await studio.cut(Cut(good, 0, 1000))).video_frames == 30


async def test_a_missing_source_is_named(studio: Studio) -> None:
    with pytest.raises(SourceBroken, match=r"nowhere\.mp4 is missing") as broken:
        await studio.cut(Cut("nowhere.mp4", 0, 1000))

    assert broken.value.source_key == "nowhere.mp4"


async def test_a_source_without_pictures_in_its_bytes_is_named(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(SMALL, faststart=True)
    whole = recording.path.read_bytes()
    media_at = whole.index(b"mdat") + 4
    studio.path("black.mp4").write_bytes(whole[:media_at] + bytes(len(whole) - media_at))

    with pytest.raises(SourceBroken) as broken:
        await studio.cut(Cut("black.mp4", 0, 1000))

    assert broken.value.source_key == "black.mp4"
    assert not studio.path("clip.mp4").exists()


async def test_a_source_of_empty_samples_is_named(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(replace(SMALL, sound=False))
    whole = recording.path.read_bytes()
    at = whole.index(b"stsz") + 12
    (samples,) = struct.unpack_from(">I", whole, at)
    studio.path("empty.mp4").write_bytes(whole[: at + 4] + bytes(4 * samples) + whole[at + 4 + 4 * samples :])

    with pytest.raises(SourceBroken) as broken:
        await studio.cut(Cut("empty.mp4", 0, 1000))

    assert broken.value.source_key == "empty.mp4"


async def test_pictures_that_do_not_decode_are_the_sources_fault_and_leave_no_clip(
    studio: Studio, library: Library
) -> None:
    recording, _ = await library.pair(replace(SMALL, sound=False))
    whole = bytearray(recording.path.read_bytes())
    # In the middle of the pictures of the second that is cut, not at their start, where an IDR is looked for.
    middle = len(whole) // 2
    whole[middle : middle + 4000] = bytes(4000)
    studio.path("torn.mp4").write_bytes(whole)

    with pytest.raises(SourceBroken, match="does not decode") as broken:
        await studio.cut(Cut("torn.mp4", 3500, 4500))

    assert broken.value.source_key == "torn.mp4"
    assert not studio.path("clip.mp4").exists()


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        pytest.param(Cut("other.mp4", 0, 1000, declared_bytes=10), "larger than announced", id="larger"),
        pytest.param(Cut("other.mp4", 0, 1000, declared_bytes=10**9), "truncated", id="smaller"),
        pytest.param(
            Cut("other.mp4", 0, 1000, declared_ms=6900),
            "announced as 6900 ms, and lasts 8000 ms",
            id="longer",
        ),
        pytest.param(
            Cut("other.mp4", 0, 9000, declared_ms=9000), "ends early: at 8000 ms", id="shorter than the cut"
        ),
    ],
)
async def test_a_source_that_is_not_the_announced_one_is_named(
    studio: Studio, library: Library, cut: Cut, reason: str
) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path, "other.mp4")

    with pytest.raises(SourceBroken, match=reason):
        await studio.cut(cut)


async def test_a_source_that_is_a_little_shorter_than_announced_is_taken(
    studio: Studio, library: Library
) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path, "source.mp4")

    clip = await studio.cut(Cut("source.mp4", 7000, 8080, declared_ms=8080))

    assert (clip.video_frames, clip.duration_ms) == (30, 1080)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """Return the `moov` of a small recording, and the size of the recording."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.mp4"
    asyncio.run(
        record(path, start_ms=0, duration_ms=1000, camera=Camera(width=128, height=72, gop_frames=10))
    )
    return moov_of(path.read_bytes()), path.stat().st_size


def read_and_plan(moov: bytes, object_bytes: int) -> None:
    """Do all that is done with an index, up to the header of a clip."""
    movie = read_movie(memoryview(moov), object_bytes=object_bytes)
    stored = StoredObject("tiny.mp4", object_bytes, "", 0)
    index, cut = SourceIndex(stored, MP4, movie, 0), Cut("tiny.mp4", 100, 900)
    check_announced(index, cut)
    if lossless_obstacle([index]) is None:
        plan_movie([movie], [cut], select_pictures([movie], [cut]))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_with_any_bytes_is_understood_or_refused(
    tiny: tuple[bytes, int], data: st.DataObject
) -> None:
    whole, object_bytes = tiny
    moov = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 6), label="damaged bytes")):
        at = data.draw(st.integers(0, len(moov) - 1), label="at")
        moov[at] = data.draw(st.sampled_from((0, 1, 127, 128, 255)) | st.integers(0, 255), label="byte")
    end = data.draw(st.just(len(moov)) | st.integers(0, len(moov)), label="length")

    # Any other error than these fails the test.
    with suppress(SpoolError, CannotCopy):
        read_and_plan(bytes(moov[:end]), object_bytes)

"""A source that wants more than to be read gets nothing: no file is opened, no socket, and nothing hangs."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.kernel.errors import SpoolError
from shared.media import commands
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ffmpeg
from shared.media.loopback import Loopback
from shared.media.port import Cut, SourceBroken
from shared.media.survey import SURVEY_LIMITS, describe
from tests.media.conftest import Library
from tests.media.encoding import encode
from tests.media.studio import Studio

SECRET = "correct horse battery staple"  # what must never come out of a file that nobody asked for


@dataclass(slots=True)
class Trap:
    """A server that should never hear of anything, and a file that should never be read."""

    url: str
    secret: Path
    visits: list[str]

    def lure(self, text: str) -> str:
        return text.replace("URL", self.url).replace("FILE", str(self.secret))


@pytest.fixture
async def trap(tmp_path: Path) -> AsyncIterator[Trap]:
    secret = tmp_path / "secret.ts"
    secret.write_text(SECRET)

    visits: list[str] = []

    def visited(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(visited, "127.0.0.1", 0)
    yield Trap(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", secret, visits)
    server.close()
    await server.wait_closed()


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nURL/a.ts\n#EXTINF:9,\nfile:FILE\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile 'URL/a.ts'\nfile 'FILE'\n"
DASH = (
    '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT9S"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>URL/a.mp4</BaseURL><SegmentBase/>'
    "</Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
TEXTS = [
    pytest.param(HLS, id="HLS playlist"),
    pytest.param(CONCAT, id="concat script"),
    pytest.param(DASH, id="DASH manifest"),
    pytest.param(SDP, id="session description"),
    pytest.param("The minutes of the meeting.\n" * 99, id="text"),
    pytest.param("", id="nothing"),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["recording.mp4", "recording.mkv", "recording.m3u8"])
async def test_a_disguised_text_opens_nothing(
    studio: Studio, trap: Trap, tmp_path: Path, *, key: str, text: str
) -> None:
    studio.path(key).write_text(trap.lure(text))
    with pytest.raises(SourceBroken) as described:
        await describe(studio.ffmpeg, studio.storage, key)
    with pytest.raises(SourceBroken) as cut:
        await encode(studio, [Cut(key, 0, 1000)])

    assert {described.value.source_key, cut.value.source_key} == {key}
    assert SECRET not in f"{described.value}{cut.value}"
    assert trap.visits == []


@pytest.mark.parametrize(
    ("head", "text"),
    [
        pytest.param(b"#EXTftyp\n", HLS, id="HLS that starts like MP4"),
        pytest.param(b"\x1aE\xdf\xa3", HLS, id="HLS that starts like Matroska"),
        pytest.param((b"\x47" + b"#" * 187) * 6, HLS, id="HLS after packets of a transport stream"),
        pytest.param(b"RIFF\0\0\0\0AVI ", CONCAT, id="concat script that starts like AVI"),
        pytest.param(b"ID3\x04\0\0\0\0\0\0", HLS, id="HLS after a tag"),
        pytest.param(b"OggS", DASH, id="manifest that starts like Ogg"),
    ],
)
async def test_a_text_with_the_first_bytes_of_a_recording_opens_nothing(
    studio: Studio, trap: Trap, head: bytes, text: str
) -> None:
    studio.path("both.mp4").write_bytes(head + trap.lure(text).encode())
    with pytest.raises(SourceBroken) as caught:
        await describe(studio.ffmpeg, studio.storage, "both.mp4")

    assert SECRET not in str(caught.value)
    assert trap.visits == []


@pytest.mark.parametrize("demuxer", ["hls", "concat", "mov", "matroska"])
@pytest.mark.parametrize("text", TEXTS[:3])
async def test_even_ffmpeg_told_to_read_a_playlist_opens_nothing(
    studio: Studio, trap: Trap, *, demuxer: str, text: str
) -> None:
    """The second fence, without the first: by descriptor, no file and no address can be opened at all."""
    studio.path("list").write_text(trap.lure(text))
    with studio.path("list").open("rb") as opened:
        arguments = commands.list_packets(commands.opened(demuxer))
        ended = await studio.ffmpeg.run("test", arguments, limits=SURVEY_LIMITS, stdin=opened)

    assert diagnose(ended, what="It") is not None
    assert SECRET not in ended.stderr
    assert trap.visits == []


async def test_an_mp4_whose_samples_are_elsewhere_is_not_followed(
    studio: Studio, library: Library, trap: Trap, tmp_path: Path
) -> None:
    recording, _ = await library.pair()
    elsewhere = _with_external_samples(recording.path.read_bytes(), str(trap.secret))
    studio.path("elsewhere.mp4").write_bytes(elsewhere)
    said = ""
    try:
        clip = await encode(studio, [Cut("elsewhere.mp4", 0, 1000)])
        said = clip.path.read_bytes().decode("latin-1")
    except SpoolError as error:
        said = str(error)

    assert said
    assert SECRET not in said
    assert trap.visits == []


async def test_the_fence_around_external_samples_is_the_one_that_holds(
    studio: Studio, library: Library, trap: Trap
) -> None:
    """With the two options that we never give, ffmpeg does try to follow: so the test above can fail."""
    recording, _ = await library.pair()
    studio.path("elsewhere.mp4").write_bytes(
        _with_external_samples(recording.path.read_bytes(), str(trap.secret))
    )
    followed = ("-enable_drefs", "1", "-use_absolute_path", "1")
    with studio.path("elsewhere.mp4").open("rb") as opened:
        arguments = commands.list_packets(commands.opened("mov", *followed))
        ended = await studio.ffmpeg.run("test", arguments, limits=SURVEY_LIMITS, stdin=opened)

    assert "on whitelist" in ended.stderr


async def test_the_next_clip_is_fine(studio: Studio, library: Library, tmp_path: Path) -> None:
    recording, _ = await library.pair()
    good = studio.add(recording.path)
    studio.path("bad.mp4").write_bytes(b"\0\0\0\x18ftyp" + bytes(5000))
    with pytest.raises(SourceBroken):
        await encode(studio, [Cut("bad.mp4", 0, 1000)])
    clip = await encode(studio, [Cut(good, 0, 1000)])

    assert clip.video_frames == 30


async def test_a_served_playlist_reaches_no_other_address(studio: Studio, trap: Trap) -> None:
    """Over the loopback HTTP is allowed, so it is the pinned demuxer alone that holds."""
    studio.path("list.mp4").write_text(trap.lure(HLS))
    async with Loopback(studio.storage) as loopback:
        url = loopback.share(await studio.storage.head("list.mp4"))
        for demuxer in (
            "mov",
            "matroska",
            "mpegts",
            "avi",
            "flv",
            "ogg",
            "wav",
            "mp3",
            "aac",
            "flac",
            "mpeg",
        ):
            arguments = commands.list_packets(commands.served(url, demuxer))
            await Ffmpeg(studio.ffmpeg._binary).run("test", arguments, limits=SURVEY_LIMITS)

    assert trap.visits == []


def _with_external_samples(movie: bytes, path: str) -> bytes:
    """Replace each data reference of an MP4 (`moov` last) by a Macintosh alias to `path`."""
    start = movie.rindex(b"moov") - 4
    return movie[:start] + _rewritten(movie[start:], path)


def _rewritten(boxes: bytes, path: str) -> bytes:
    out, position = b"", 0
    while position + 8 <= len(boxes):
        size, kind = struct.unpack_from(">I4s", boxes, position)
        body = boxes[position + 8 : position + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = _rewritten(body, path)
        if kind == b"dref":
            body = struct.pack(">II", 0, 1) + _alias(path)
        out += struct.pack(">I4s", 8 + len(body), kind) + body
        position += size
    return out


def _alias(path: str) -> bytes:
    name = path.encode()
    name += b"\0" * (len(name) % 2)
    record = bytes(10) + b"\1" + b"v".ljust(27, b"\0") + bytes(12) + b"\1" + b"f".ljust(63, b"\0") + bytes(16)
    record += struct.pack(">hh", -1, -1) + bytes(16)
    record += struct.pack(">hH", 2, len(name)) + name + struct.pack(">hH", -1, 0)
    record = record.ljust(160, b"\0")
    return struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record

"""ffmpeg's list of packets is taken apart whatever the pieces it arrives in."""

from __future__ import annotations

from fractions import Fraction

import pytest

from shared.kernel.errors import Bug
from shared.media.framecrc import MAX_LINE_BYTES, Entry, FrameLog

# Written by ffmpeg 9.0.2 for a transport stream with B-frames.
LOG = b"""#extradata 0:       39, 0xa4c508d5
#software: Lavf63.1.102
#tb 0: 1/90000
#media_type 0: video
#codec_id 0: h264
#dimensions 0: 640x360
#sar 0: 1/1
#tb 1: 1/48000
#media_type 1: audio
#codec_id 1: aac
#sample_rate 1: 48000
#channel_layout_name 1: stereo
0,     132000,     138000,     3000,     9711, 0xb22fdcc9
0,     135000,     144000,     3000,     1234, 0xb22fdcc9, F=0x0, S=1, MPEGTS Stream ID,        1, 0x00c000c0
1,      -1024,      -1024,     1024,      299, 0xaf7280d4, F=0x5, S=1, Skip Samples,       10, 0x018000401
0,     138000,      NOPTS,        0,      100, 0xb22fdcc9
"""


@pytest.mark.parametrize(
    "piece_bytes", [pytest.param(len(LOG), id="at once"), pytest.param(1, id="byte by byte")]
)
def test_packets_are_read_with_their_stream(piece_bytes: int) -> None:
    entries: list[Entry] = []
    log = FrameLog(entries.append)
    for start in range(0, len(LOG), piece_bytes):
        log.feed(LOG[start : start + piece_bytes])

    video, audio = log.streams[0], log.streams[1]
    assert (video.kind, video.codec, video.width, video.height) == ("video", "h264", 640, 360)
    assert (audio.kind, audio.codec, audio.sample_rate_hz) == ("audio", "aac", 48000)
    assert [entry.stream for entry in entries] == [video, video, audio, video]
    assert [entry.pts for entry in entries] == [138000, 144000, -1024, None]
    assert [entry.dts for entry in entries] == [132000, 135000, -1024, 138000]
    assert [entry.key for entry in entries] == [True, False, True, True]
    assert [entry.discarded for entry in entries] == [False, False, True, False]
    assert entries[0].start_s == Fraction(138000, 90000)
    assert entries[0].end_s == Fraction(141000, 90000)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"0, 1, 2\n", id="too short"),
        pytest.param(b"one, 1, 2, 3, 4, 0x0\n", id="no number"),
        pytest.param(b"#tb 0: 1/0\n", id="no time base"),
        pytest.param(b"0" * (MAX_LINE_BYTES + 1), id="endless"),
    ],
)
def test_another_format_is_a_bug(line: bytes) -> None:
    with pytest.raises(Bug):
        FrameLog(lambda _: None).feed(line)


@pytest.mark.parametrize("none", [b"NOPTS", b"-9223372036854775808"])
def test_a_packet_without_times_has_none(none: bytes) -> None:
    entries: list[Entry] = []
    log = FrameLog(entries.append)

    log.feed(b"#tb 0: 1/90000\n#media_type 0: video\n0, " + none + b", " + none + b", 3000, 10, 0x1\n")

    assert (entries[0].dts, entries[0].pts) == (None, None)

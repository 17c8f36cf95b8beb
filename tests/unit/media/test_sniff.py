"""What starts like a recording is recognised, and nothing else is."""

from __future__ import annotations

import pytest

from shared.media.sniff import SNIFF_BYTES, sniff

TS_PACKET = b"\x47" + bytes(187)
M2TS_PACKET = bytes(4) + TS_PACKET


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        pytest.param(b"\0\0\0\x18ftypisom", "mov", id="mp4"),
        pytest.param(b"\0\0\0\x14ftypqt  ", "mov", id="quicktime"),
        pytest.param(b"\0\0\0\x08wide\0\0\0\0mdat", "mov", id="quicktime without ftyp"),
        pytest.param(b"\0\0\0\x18stypmsdh", "mov", id="mp4 fragment"),
        pytest.param(b"\x1aE\xdf\xa3\x01\0\0", "matroska", id="matroska and webm"),
        pytest.param(TS_PACKET * 6, "mpegts", id="transport stream"),
        pytest.param(M2TS_PACKET * 6, "mpegts", id="transport stream with time codes"),
        pytest.param(b"\0\0\x01\xba\x44", "mpeg", id="program stream"),
        pytest.param(b"RIFF\0\0\0\0WAVEfmt ", "wav", id="wav"),
        pytest.param(b"RF64\xff\xff\xff\xffWAVEds64", "wav", id="wav beyond 4 GiB"),
        pytest.param(b"RIFF\0\0\0\0AVI LIST", "avi", id="avi"),
        pytest.param(b"FLV\x01\x05", "flv", id="flv"),
        pytest.param(b"OggS\0\x02", "ogg", id="ogg"),
        pytest.param(b"fLaC\0\0\0\x22", "flac", id="flac"),
        pytest.param(b"ID3\x04\0\0", "mp3", id="mp3 with a tag"),
        pytest.param(b"\xff\xfb\x90\x64", "mp3", id="mp3"),
        pytest.param(b"\xff\xf1\x50\x80", "aac", id="adts"),
    ],
)
def test_a_recording_is_recognised_by_its_first_bytes(head: bytes, demuxer: str) -> None:
    container = sniff(head.ljust(64, b"\0") if len(head) < 64 else head[:SNIFF_BYTES])

    assert container is not None
    assert container.demuxer == demuxer


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"G", id="one byte"),
        pytest.param(b"The minutes of the meeting.\n" * 40, id="text"),
        pytest.param(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", id="HLS playlist"),
        pytest.param(b"ffconcat version 1.0\nfile /etc/passwd\n", id="concat script"),
        pytest.param(b'<?xml version="1.0"?><MPD></MPD>', id="DASH manifest"),
        pytest.param(b"RIFF\0\0\0\0WEBPVP8 ", id="picture in RIFF"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="PNG"),
        pytest.param(b"\xff\xd8\xff\xe0\0\x10JFIF", id="JPEG"),
        pytest.param(b"PK\x03\x04", id="archive"),
        pytest.param(TS_PACKET * 2, id="too little of a transport stream"),
        pytest.param(TS_PACKET * 2 + bytes(188), id="sync bytes that stop"),
        pytest.param(b"\xff\xff\xff\xff", id="ones"),
        pytest.param(bytes(1024), id="zeros"),
    ],
)
def test_anything_else_is_not(head: bytes) -> None:
    assert sniff(head) is None

"""Recognise a container by its first bytes. Pure.

ffmpeg is never left to guess: its guess may be a playlist, and a playlist opens whatever it names.
What is not recognised here is not opened at all.
"""

from __future__ import annotations

from dataclasses import dataclass

SNIFF_BYTES = 1024  # five packets of MPEG-TS, and every magic number below


@dataclass(frozen=True, slots=True)
class Container:
    """A container by the name people use, and the name of ffmpeg's demuxer for it."""

    name: str
    demuxer: str


MP4 = Container("mp4", "mov")
MATROSKA = Container("matroska", "matroska")
MPEG_TS = Container("mpegts", "mpegts")
MPEG_PS = Container("mpegps", "mpeg")
WAV = Container("wav", "wav")
AVI = Container("avi", "avi")
FLV = Container("flv", "flv")
OGG = Container("ogg", "ogg")
FLAC = Container("flac", "flac")
MP3 = Container("mp3", "mp3")
ADTS = Container("aac", "aac")

_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"sidx")
_MAGIC = (
    (b"\x1aE\xdf\xa3", MATROSKA),
    (b"\x00\x00\x01\xba", MPEG_PS),
    (b"FLV\x01", FLV),
    (b"OggS", OGG),
    (b"fLaC", FLAC),
    (b"ID3", MP3),
)
_RIFF_FORMS = {b"WAVE": WAV, b"AVI ": AVI}
_TS_SYNC = 0x47
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, offset of the first sync byte


def sniff(head: bytes) -> Container | None:
    """Return the container that starts with `head` (`SNIFF_BYTES` of it, or all there is), or None."""
    if head[4:8] in _FIRST_BOXES:
        return MP4
    for magic, container in _MAGIC:
        if head.startswith(magic):
            return container
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF_FORMS.get(head[8:12])
    if _is_transport_stream(head):
        return MPEG_TS
    return _mpeg_audio(head)


def _is_transport_stream(head: bytes) -> bool:
    """Tell whether every packet in `head`, and at least three, starts with the sync byte."""
    for packet_bytes, offset in _TS_PACKETS:
        starts = range(offset, len(head), packet_bytes)
        if len(starts) >= 3 and all(head[start] == _TS_SYNC for start in starts):
            return True
    return False


def _mpeg_audio(head: bytes) -> Container | None:
    """Tell MP3 from ADTS by the layer bits of the first frame header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if layer == 0:
        return ADTS if head[1] & 0xF0 == 0xF0 and head[2] >> 2 & 15 < 13 else None
    return MP3 if version != 1 and bitrate not in (0, 15) and rate != 3 else None

"""What a sample entry says about a track's codec: enough to copy samples, prove them and compare files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.media.mp4.boxes import FULL_BYTES, Malformed, box, children, name, take, unpack, walk

VIDEO_FIELDS_BYTES = 78  # of a VisualSampleEntry before its child boxes
_AUDIO_FIELDS_BYTES = 28  # of an AudioSampleEntry, version 0
# QuickTime's sound descriptions of version 1 and 2 have more fields before the child boxes.
_AUDIO_EXTRA_BYTES = {0: 0, 1: 16, 2: 36}
_HVCC_ARRAYS_AT = 23  # bytes of an `hvcC` before its parameter sets
_AAC_OBJECTS = (0x40, 0x66, 0x67, 0x68)  # MPEG-4 AAC, and the three profiles of MPEG-2 AAC
_OTHER_OBJECTS = {0x69: "mp3", 0x6B: "mp3", 0xA5: "ac3", 0xDD: "vorbis"}  # for messages
_DECODER_CONFIG_TAG, _DECODER_SPECIFIC_TAG, _ES_TAG = 4, 5, 3


@dataclass(frozen=True, slots=True)
class NalConfig:
    """How the samples of a track of H.264 or HEVC are to be read."""

    codec: Literal["h264", "hevc"]
    profile: int  # of H.264 `profile_idc`: 66 baseline, 77 main, 100 high, …
    length_bytes: int  # of the number before each NAL unit: 1, 2 or 4
    parameter_sets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """One sample entry. Entries with equal `identity` belong to samples that one decoder reads in a row."""

    kind: bytes
    raw: bytes  # the whole box, to be copied as it is
    identity: tuple[bytes, ...]
    width: int = 0  # pixels; 0 for sound
    height: int = 0
    nal: NalConfig | None = None
    aac: bool = False
    object_type: int = 0  # of an elementary stream (esds)

    @property
    def codec(self) -> str:
        """The codec's common name where there is one, else the entry's four letters."""
        if self.nal is not None:
            return self.nal.codec
        return "aac" if self.aac else _OTHER_OBJECTS.get(self.object_type) or name(self.kind)


def read_entries(stsd: memoryview, handler: bytes) -> tuple[SampleEntry, ...]:
    """Read the sample entries of a track of pictures (`vide`) or sound (`soun`). Raises Malformed."""
    read = _read_video if handler == b"vide" else _read_audio
    unpack(">II", stsd)  # version and the count, which the boxes themselves tell better
    entries = tuple(read(entry.kind, entry.payload) for entry in walk(stsd[FULL_BYTES + 4 :]))
    if not entries:
        raise Malformed("a track has no sample entry")
    return entries


def _read_video(kind: bytes, payload: memoryview) -> SampleEntry:
    width, height = unpack(">HH", payload, 24)
    inner = [] if len(payload) < VIDEO_FIELDS_BYTES else list(walk(payload[VIDEO_FIELDS_BYTES:]))
    named, read = _CONFIGS.get(kind, (b"", read_avc))
    config = next((one.payload for one in inner if one.kind == named), None)
    nal = read(config) if config is not None else None
    # The bit rate is an average of the one file, and says nothing about how to decode it.
    kept = sorted(one.kind + bytes(one.payload) for one in inner if one.kind != b"btrt")
    identity = (kind, take(payload, 24, 4), *kept)
    return SampleEntry(kind, box(kind, bytes(payload)), identity, width, height, nal)


def read_avc(config: memoryview) -> NalConfig:
    """Read the payload of an `avcC` box. Raises Malformed."""
    version, profile, _compatible, _level, length, sets = unpack(">BBBBBB", config)
    length_bytes = (length & 3) + 1
    if version != 1 or length_bytes == 3:
        raise Malformed("the H.264 configuration (avcC) is not valid")
    found: list[bytes] = []
    at = _read_parameter_sets(config, 6, sets & 31, found)
    (sets,) = unpack(">B", config, at)
    _read_parameter_sets(config, at + 1, sets, found)
    return NalConfig("h264", profile, length_bytes, tuple(found))


def read_hevc(config: memoryview) -> NalConfig:
    """Read the payload of an `hvcC` box. Raises Malformed."""
    version, profile = unpack(">BB", config)
    length, arrays = unpack(">BB", config, _HVCC_ARRAYS_AT - 2)
    length_bytes = (length & 3) + 1
    if version != 1 or length_bytes == 3:
        raise Malformed("the HEVC configuration (hvcC) is not valid")
    found: list[bytes] = []
    at = _HVCC_ARRAYS_AT
    for _ in range(arrays):
        (sets,) = unpack(">H", config, at + 1)
        at = _read_parameter_sets(config, at + 3, sets, found)
    return NalConfig("hevc", profile & 31, length_bytes, tuple(found))


# Where a kind of entry says how its samples are to be read.
_CONFIGS = {
    **dict.fromkeys((b"avc1", b"avc3"), (b"avcC", read_avc)),
    **dict.fromkeys((b"hvc1", b"hev1"), (b"hvcC", read_hevc)),
}


def _read_parameter_sets(config: memoryview, at: int, count: int, found: list[bytes]) -> int:
    for _ in range(count):
        (size_bytes,) = unpack(">H", config, at)
        found.append(take(config, at + 2, size_bytes))
        at += 2 + size_bytes
    return at


def _read_audio(kind: bytes, payload: memoryview) -> SampleEntry:
    (version,) = unpack(">H", payload, 8)
    fields_bytes = _AUDIO_FIELDS_BYTES + _AUDIO_EXTRA_BYTES.get(version, 0)
    inner = children(payload[fields_bytes:]) if len(payload) > fields_bytes else {}
    raw = box(kind, bytes(payload))
    if version == 1 and b"wave" in inner:
        inner = children(inner[b"wave"])
        if b"esds" in inner:
            version, raw = 0, _as_in_mp4(kind, payload, inner[b"esds"])
    object_type, specific = _read_decoder(inner[b"esds"]) if b"esds" in inner else (0, b"")
    # Bit rates and buffer sizes in `esds` are averages of the one file.
    identity = (kind, take(memoryview(raw), 8 + 16, 12), bytes([object_type]), specific)
    aac = kind == b"mp4a" and version == 0 and object_type in _AAC_OBJECTS and bool(specific)
    return SampleEntry(kind, raw, identity, aac=aac, object_type=object_type)


def _as_in_mp4(kind: bytes, payload: memoryview, esds: memoryview) -> bytes:
    """Return QuickTime's description of compressed sound (version 1) as MP4 has it; few read the other."""
    fields = bytearray(take(payload, 0, _AUDIO_FIELDS_BYTES))
    fields[8:16] = bytes(8)  # the version and who made it
    fields[20:24] = bytes(4)  # that it is compressed, and its packets
    return box(kind, bytes(fields), box(b"esds", bytes(esds)))


def _read_decoder(esds: memoryview) -> tuple[int, bytes]:
    """Return (object type, decoder specific bytes) of an elementary stream descriptor."""
    tag, stream = _read_descriptor(esds, FULL_BYTES)
    if tag != _ES_TAG:
        raise Malformed("the sound's description (esds) is not valid")
    (flags,) = unpack(">B", stream, 2)
    at = 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
    if flags & 0x40:
        at += 1 + unpack(">B", stream, at)[0]
    tag, config = _read_descriptor(stream, at)
    if tag != _DECODER_CONFIG_TAG:
        raise Malformed("the sound's description (esds) is not valid")
    (object_type,) = unpack(">B", config)
    if len(config) <= 13:
        return object_type, b""
    tag, specific = _read_descriptor(config, 13)
    return object_type, bytes(specific) if tag == _DECODER_SPECIFIC_TAG else b""


def _read_descriptor(data: memoryview, at: int) -> tuple[int, memoryview]:
    (tag,) = unpack(">B", data, at)
    size_bytes = 0
    for _ in range(4):  # the standard's limit for the length of a length
        at += 1
        (octet,) = unpack(">B", data, at)
        size_bytes = size_bytes << 7 | octet & 0x7F
        if not octet & 0x80:
            break
    if at + 1 + size_bytes > len(data):
        raise Malformed("a descriptor reaches beyond its box")
    return tag, data[at + 1 : at + 1 + size_bytes]

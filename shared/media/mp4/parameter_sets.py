"""Give pictures that were encoded anew a place in a track of copied H.264. Pure.

Both kinds of pictures have parameter sets, which their slices name by a number. The new ones get a number
that the source does not use, and stand beside the source's in the one `avcC`: so nothing of the source is
changed, and no parameter set lies between the pictures, where many players do not look.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from shared.kernel.errors import Corrupt
from shared.media.mp4.boxes import box, walk
from shared.media.mp4.entries import VIDEO_FIELDS_BYTES, NalConfig, SampleEntry, read_avc
from shared.media.mp4.selection import CannotCopy

MAX_SETS = 31  # sequence parameter sets in one `avcC`; their numbers go as far
_SPS, _PPS, _DELIMITER = 7, 8, 9
_TYPE_BITS = 31  # of a NAL unit's first byte
_SETTINGS = frozenset({_SPS, _PPS, _DELIMITER, 6})  # 6: what the encoder says of itself
_SPS_NUMBER_AT, _PPS_NUMBER_AT = 4, 1  # bytes before the number


@dataclass(frozen=True, slots=True)
class Encoded:
    """Pictures of one encoder, in order, each with its NAL units behind their lengths."""

    sps: bytes
    pps: bytes
    samples: tuple[bytes, ...]


def free_number(config: NalConfig) -> int:
    """Return a number that no parameter set of the source has. Raises CannotCopy when there is none."""
    taken = {_number(unit) for unit in config.parameter_sets}
    for number in range(1, MAX_SETS + 1):
        if number not in taken:
            return number
    raise CannotCopy("the source uses every number that a parameter set can have")


def take_apart(annexb: bytes, length_bytes: int) -> Encoded:
    """Cut a stream with an access unit delimiter before each picture into samples. Raises Corrupt."""
    sets: dict[int, bytes] = {}
    samples: list[bytearray] = []
    for unit in _units(annexb):
        kind = unit[0] & _TYPE_BITS
        if kind == _DELIMITER:
            samples.append(bytearray())
        if kind in (_SPS, _PPS) and sets.setdefault(kind, unit) != unit:
            raise Corrupt("the encoder changed its parameter sets")
        if kind in _SETTINGS:
            continue
        if not samples or len(unit) >= 1 << 8 * length_bytes:
            raise Corrupt("the encoder wrote a picture that does not fit")
        samples[-1] += len(unit).to_bytes(length_bytes, "big") + unit
    if len(sets) < 2 or not all(samples):
        raise Corrupt("the encoder left pictures out")
    return Encoded(sets[_SPS], sets[_PPS], tuple(bytes(sample) for sample in samples))


def with_sets(entry: SampleEntry, encoded: Encoded) -> SampleEntry:
    """Return the entry with the parameter sets of both. Raises CannotCopy when they do not fit."""
    payload = entry.raw[8:]
    inner = [(one.kind, bytes(one.payload)) for one in walk(memoryview(payload)[VIDEO_FIELDS_BYTES:])]
    config = next(content for kind, content in inner if kind == b"avcC")
    joined = _joined(config, encoded)
    boxes = [box(kind, joined if kind == b"avcC" else content) for kind, content in inner]
    raw = box(entry.kind, payload[:VIDEO_FIELDS_BYTES], *boxes)
    return replace(entry, raw=raw, nal=read_avc(memoryview(joined)))


def _joined(config: bytes, encoded: Encoded) -> bytes:
    """Return the `avcC` with one more set of each kind, at a level that both need."""
    many_sps = config[5] & 31
    sps_end = _end_of_sets(config, 6, many_sps)
    many_pps = config[sps_end]
    pps_end = _end_of_sets(config, sps_end + 1, many_pps)
    if many_sps >= MAX_SETS or many_pps >= 255:
        raise CannotCopy("the source has as many parameter sets as fit a file")
    level = max(config[3], encoded.sps[3])
    return b"".join(
        [
            *(config[:3], bytes([level]), config[4:5], bytes([config[5] & 0xE0 | many_sps + 1])),
            *(config[6:sps_end], struct.pack(">H", len(encoded.sps)), encoded.sps),
            *(bytes([many_pps + 1]), config[sps_end + 1 : pps_end]),
            *(struct.pack(">H", len(encoded.pps)), encoded.pps, config[pps_end:]),
        ]
    )


def _end_of_sets(config: bytes, at: int, count: int) -> int:
    for _ in range(count):
        (size_bytes,) = struct.unpack_from(">H", config, at)
        at += 2 + size_bytes
    return at


def _number(unit: bytes) -> int | None:
    kind = unit[0] & _TYPE_BITS if unit else 0
    if kind not in (_SPS, _PPS):
        return None
    return _exp_golomb(unit[_SPS_NUMBER_AT if kind == _SPS else _PPS_NUMBER_AT :][:5])


def _exp_golomb(data: Sequence[int]) -> int | None:
    """Read one number as H.264 writes it, or None where the bits do not suffice."""
    bits = "".join(f"{octet:08b}" for octet in data)
    zeros = len(bits) - len(bits.lstrip("0"))
    word = bits[zeros : 2 * zeros + 1]
    return int(word, 2) - 1 if len(word) == zeros + 1 else None


def _units(annexb: bytes) -> Iterator[bytes]:
    """Yield the NAL units between start codes of three or four bytes."""
    starts = list(_starts(annexb))
    for start, following in zip(starts, [*starts[1:], len(annexb) + 3], strict=True):
        # A unit never ends in a zero: those before the next start code belong to that one.
        if unit := annexb[start : following - 3].rstrip(b"\0"):
            yield unit


def _starts(annexb: bytes) -> Iterable[int]:
    at = annexb.find(b"\0\0\1")
    while at >= 0:
        yield at + 3
        at = annexb.find(b"\0\0\1", at + 3)

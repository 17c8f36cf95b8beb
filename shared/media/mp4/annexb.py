"""Turn H.264 samples of an MP4 into the form a bare decoder reads (Annex B). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shared.media.mp4.boxes import Malformed
from shared.media.mp4.entries import AvcConfig

_START_CODE = b"\0\0\0\1"
_IDR = 5
_TYPE_BITS = 31  # of a NAL unit's first byte


def to_annexb(config: AvcConfig, samples: Iterable[memoryview]) -> bytes:
    """Return the parameter sets and the samples, with start codes for lengths. Raises Malformed."""
    stream = bytearray()
    for parameter_set in config.parameter_sets:
        stream += _START_CODE + parameter_set
    for sample in samples:
        _append(stream, sample, config.length_bytes)
    return bytes(stream)


def _append(stream: bytearray, sample: memoryview, length_bytes: int) -> None:
    at = 0
    while at < len(sample):
        size_bytes = int.from_bytes(sample[at : at + length_bytes], "big")
        at += length_bytes
        if at + size_bytes > len(sample):
            raise Malformed("a picture's parts reach beyond its sample")
        if size_bytes:
            stream += _START_CODE
            stream += sample[at : at + size_bytes]
        at += size_bytes


def starts_alone(sample: memoryview, length_bytes: int) -> bool | None:
    """Tell whether a sample's picture is an IDR, before which nothing is ever needed.

    `sample` may be only its beginning; None: what there is of it holds no picture yet.
    """
    at = 0
    while at + length_bytes < len(sample):
        size_bytes = int.from_bytes(sample[at : at + length_bytes], "big")
        kind = sample[at + length_bytes] & _TYPE_BITS
        if 1 <= kind <= _IDR:
            return kind == _IDR
        at += length_bytes + size_bytes
    return None

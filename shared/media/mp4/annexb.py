"""Turn samples of H.264 and HEVC in an MP4 into the form a bare decoder reads (Annex B). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shared.media.mp4.boxes import Malformed
from shared.media.mp4.entries import NalConfig

_START_CODE = b"\0\0\0\1"
# Of each codec: the kinds of NAL units that are pictures, and those of them before which nothing is needed.
_PICTURES = {"h264": range(1, 6), "hevc": range(32)}
_ALONE = {
    "h264": range(5, 6),
    "hevc": range(16, 21),
}  # of HEVC not 21, which pictures shown earlier may follow


def to_annexb(config: NalConfig, samples: Iterable[memoryview]) -> bytes:
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


def starts_alone(sample: memoryview, config: NalConfig) -> bool | None:
    """Tell whether a sample's picture is one before which nothing is ever needed, such as an IDR.

    `sample` may be only its beginning; None: what there is of it holds no picture yet.
    """
    at, length_bytes = 0, config.length_bytes
    while at + length_bytes < len(sample):
        size_bytes = int.from_bytes(sample[at : at + length_bytes], "big")
        kind = _kind(sample[at + length_bytes], config)
        if kind in _PICTURES[config.codec]:
            return kind in _ALONE[config.codec]
        at += length_bytes + size_bytes
    return None


def _kind(first_octet: int, config: NalConfig) -> int:
    return first_octet & 31 if config.codec == "h264" else first_octet >> 1 & 63

"""Pictures that were encoded anew stand beside the source's own, under a number that is free."""

from __future__ import annotations

import struct

import pytest

from shared.kernel.errors import Corrupt
from shared.media.mp4.boxes import box
from shared.media.mp4.entries import NalConfig, read_entries
from shared.media.mp4.parameter_sets import Encoded, free_number, take_apart, with_sets
from shared.media.mp4.selection import CannotCopy

# High at level 3.1; what follows the number does not matter here. Numbers: 1 → 0, 010 → 1, 011 → 2.
SPS = {0: b"\x67\x64\x00\x1f\x80", 1: b"\x67\x64\x00\x28\x40", 2: b"\x67\x64\x00\x1f\x60"}
PPS = {0: b"\x68\x80", 1: b"\x68\x40", 2: b"\x68\x60"}
DELIMITER, WORDS, IDR, SLICE = b"\x09\xf0", b"\x06\x05words", b"\x65key", b"\x41slice"


def annexb(*units: bytes, start: bytes = b"\0\0\0\1") -> bytes:
    return b"".join(start + unit for unit in units)


def entry_with(*, sps: tuple[bytes, ...], pps: tuple[bytes, ...], more: bytes = b"") -> memoryview:
    """Return the payload of an `stsd` box."""
    config = b"\x01\x64\x00\x1f\xff" + bytes([0xE0 | len(sps)])
    config += b"".join(struct.pack(">H", len(one)) + one for one in sps)
    config += bytes([len(pps)]) + b"".join(struct.pack(">H", len(one)) + one for one in pps) + more
    fields = bytes(24) + struct.pack(">HH", 640, 360) + bytes(50)
    return memoryview(bytes(8) + box(b"avc1", fields, box(b"avcC", config), box(b"pasp", b"\0\0\0\1" * 2)))


@pytest.mark.parametrize(
    ("sets", "number"),
    [
        pytest.param((SPS[0], PPS[0]), 1, id="the next"),
        pytest.param((SPS[0], PPS[0], PPS[1]), 2, id="after the last of either kind"),
        pytest.param((SPS[2], PPS[2]), 1, id="between them"),
    ],
)
def test_the_number_is_one_that_the_source_does_not_use(sets: tuple[bytes, ...], number: int) -> None:
    assert free_number(NalConfig("h264", 100, 4, sets)) == number


def test_a_source_that_uses_every_number_is_not_joined() -> None:
    # The number n is written as 1 + n in binary, after as many zeros as that has digits but one.
    used = []
    for number in range(1, 32):
        word = f"{number + 1:b}"
        bits = ("0" * (len(word) - 1) + word).ljust(16, "0")
        used.append(b"\x68" + int(bits, 2).to_bytes(2, "big"))

    with pytest.raises(CannotCopy, match="every number"):
        free_number(NalConfig("h264", 100, 4, tuple(used)))


@pytest.mark.parametrize("start", [b"\0\0\1", b"\0\0\0\1"])
def test_each_picture_is_a_sample_without_what_belongs_to_the_index(start: bytes) -> None:
    stream = annexb(DELIMITER, SPS[1], PPS[1], WORDS, IDR, DELIMITER, SLICE, SLICE, start=start)

    encoded = take_apart(stream, 4)

    assert encoded == Encoded(SPS[1], PPS[1], (b"\0\0\0\4" + IDR, b"\0\0\0\6" + SLICE + b"\0\0\0\6" + SLICE))


@pytest.mark.parametrize(
    "units",
    [
        pytest.param((DELIMITER, IDR), id="no parameter sets"),
        pytest.param((DELIMITER, SPS[1], PPS[1], IDR, DELIMITER), id="no picture after a delimiter"),
        pytest.param((SPS[1], PPS[1], IDR), id="no delimiter"),
        pytest.param((DELIMITER, SPS[1], PPS[1], IDR, DELIMITER, SPS[2], SLICE), id="other settings later"),
    ],
)
def test_a_stream_that_is_not_the_encoders_is_refused(units: tuple[bytes, ...]) -> None:
    with pytest.raises(Corrupt, match="encoder"):
        take_apart(annexb(*units), 4)


def test_a_picture_that_does_not_fit_its_length_is_refused() -> None:
    stream = annexb(DELIMITER, SPS[1], PPS[1], b"\x65" + b"k" * 300)

    with pytest.raises(Corrupt, match="fit"):
        take_apart(stream, 1)


def test_the_settings_of_both_stand_in_one_entry() -> None:
    more = b"\xfd\xf8\xf8\x00"  # what profiles from high on say after the sets
    (entry,) = read_entries(entry_with(sps=(SPS[0],), pps=(PPS[0],), more=more), b"vide")

    joined = with_sets(entry, Encoded(SPS[1], PPS[1], ()))

    (again,) = read_entries(memoryview(bytes(8) + joined.raw), b"vide")
    assert again.nal == joined.nal == NalConfig("h264", 100, 4, (SPS[0], SPS[1], PPS[0], PPS[1]))
    assert (again.width, again.height) == (640, 360)
    assert joined.raw.endswith(box(b"pasp", b"\0\0\0\1" * 2))
    config = joined.raw[joined.raw.index(b"avcC") + 4 :]
    assert config[3] == 0x28  # the higher level of the two
    assert more in config


def test_an_entry_that_is_full_takes_no_more() -> None:
    (entry,) = read_entries(entry_with(sps=(SPS[0],) * 31, pps=(PPS[0],)), b"vide")

    with pytest.raises(CannotCopy, match="as many"):
        with_sets(entry, Encoded(SPS[1], PPS[1], ()))

"""The headers of fragments, as writers other than ffmpeg write them as well."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from shared.media.mp4.anchors import Anchors, read_mfra, read_sidx
from shared.media.mp4.boxes import Malformed, box, full_box
from shared.media.mp4.fragments import Block, Defaults, read_defaults, read_fragment, to_table

AT = 5000  # where the fragment starts
OBJECT_BYTES = 100_000
DEFAULTS = {1: Defaults(duration_ticks=40, size_bytes=300, flags=0x1_0000), 2: Defaults(1024, 200, 0)}
BASE_IS_MOOF, BASE_OFFSET = 0x2_0000, 0x1
NOT_SYNC = 0x1_0000


def tfhd(number: int, flags: int = BASE_IS_MOOF, *values: bytes) -> bytes:
    return full_box(b"tfhd", 0, flags, struct.pack(">I", number), *values)


def tfdt(ticks: int, *, version: int = 1) -> bytes:
    return full_box(b"tfdt", version, 0, struct.pack(">Q" if version else ">I", ticks))


def trun(flags: int, count: int, *values: bytes, version: int = 0) -> bytes:
    return full_box(b"trun", version, flags, struct.pack(">I", count), *values)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *(value & 0xFFFF_FFFF for value in values))


def read(*trafs: bytes, ends: dict[int, int] | None = None) -> list[tuple[int, Block]]:
    moof = b"".join(box(b"traf", traf) for traf in trafs)
    return read_fragment(
        memoryview(moof), at=AT, defaults=DEFAULTS, ends_ticks=ends or {}, object_bytes=OBJECT_BYTES
    )


def test_what_a_fragment_does_not_say_is_as_the_index_says() -> None:
    [(number, block)] = read(tfhd(1) + tfdt(800) + trun(0x1 | 0x4, 3, numbers(100), numbers(0)))

    assert number == 1
    assert block.decode_ticks.tolist() == [800, 840, 880]
    assert block.sizes.tolist() == [300, 300, 300]
    assert block.offsets.tolist() == [5100, 5400, 5700]
    assert block.alone.tolist() == [True, False, False]
    assert block.end_ticks == 920


def test_the_head_of_a_track_comes_before_the_index_and_a_sample_before_both() -> None:
    head = tfhd(1, BASE_IS_MOOF | 0x2 | 0x8 | 0x10 | 0x20, numbers(1, 50, 70, 0))
    [(_, block)] = read(
        head + tfdt(0, version=0) + trun(0x1 | 0x100 | 0x400, 2, numbers(8, 11, NOT_SYNC, 12, 0))
    )

    assert block.decode_ticks.tolist() == [0, 11]
    assert block.end_ticks == 23
    assert block.sizes.tolist() == [70, 70]
    assert block.alone.tolist() == [False, True]


@pytest.mark.parametrize("version", [0, 1])
def test_samples_may_be_shown_before_they_are_decoded(version: int) -> None:
    run = trun(0x1 | 0x800, 2, numbers(8, 80, -40), version=version)
    [(_, block)] = read(tfhd(1) + tfdt(100) + run)

    assert block.shown_ticks.tolist() == [180, 100]


PLACES = [
    pytest.param(
        (tfhd(1) + tfdt(0) + trun(0x1, 1, numbers(100)) + trun(0, 2) + trun(0x1, 1, numbers(2000)),),
        [[5100, 5400, 5700, 7000]],
        id="a run follows the one before",
    ),
    pytest.param(
        (tfhd(1, 0) + tfdt(0) + trun(0x1, 2, numbers(100)), tfhd(2, 0) + tfdt(0) + trun(0, 2)),
        [[5100, 5400], [5700, 5900]],
        id="a track follows the one before",
    ),
    pytest.param(
        (tfhd(1, 0) + tfdt(0) + trun(0x1, 1, numbers(100)), tfhd(2) + tfdt(0) + trun(0x1, 1, numbers(50))),
        [[5100], [5050]],
        id="a track starts from the fragment",
    ),
    pytest.param(
        (tfhd(1, BASE_OFFSET, struct.pack(">Q", 70_000)) + tfdt(0) + trun(0x1, 1, numbers(-500)),),
        [[69_500]],
        id="a track starts where it says",
    ),
]


@pytest.mark.parametrize(("trafs", "offsets"), PLACES)
def test_where_samples_lie_is_said_in_four_ways(trafs: tuple[bytes, ...], offsets: list[list[int]]) -> None:
    assert [block.offsets.tolist() for _, block in read(*trafs)] == offsets


def test_without_a_time_a_fragment_goes_on_where_the_one_before_ended() -> None:
    blocks = read(tfhd(1) + trun(0x1, 2, numbers(8)), tfhd(1) + trun(0x1, 1, numbers(900)), ends={1: 7000})

    assert [block.decode_ticks.tolist() for _, block in blocks] == [[7000, 7040], [7080]]


BAD = [
    pytest.param(tfhd(1) + trun(0x1, 1, numbers(8)), "does not say when", id="no time"),
    pytest.param(tfhd(1) + tfdt(1 << 60) + trun(0x1, 1, numbers(8)), "beyond any", id="the end of time"),
    pytest.param(tfdt(0) + trun(0x1, 1, numbers(8)), "'tfhd' is missing", id="no track"),
    pytest.param(tfhd(1) + tfdt(0) + trun(0x1, 0xFFFFFFFF, numbers(8)), "declares", id="a sample bomb"),
    pytest.param(tfhd(1) + tfdt(0) + trun(0x201, 9, numbers(8, 1)), "has room for", id="a short table"),
    pytest.param(
        tfhd(1) + tfdt(0) + trun(0x1, 1, numbers(-6000)), "outside of the file", id="before the file"
    ),
    pytest.param(
        tfhd(1, BASE_OFFSET, struct.pack(">Q", 1 << 63)) + tfdt(0) + trun(0, 1), "outside", id="a far base"
    ),
    pytest.param(tfhd(1) + tfdt(0) + trun(0, 0) * 5000, "too many runs", id="endless runs"),
]


@pytest.mark.parametrize(("traf", "reason"), BAD)
def test_a_fragment_that_lies_is_refused(traf: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read(traf)


def test_frames_of_sound_without_a_length_are_spread() -> None:
    ticks = np.array([0, 2048, 2048, 4096, 4096, 5120])
    nothing = np.zeros(6, np.int64)
    block = Block(ticks, nothing.astype(np.int32), nothing.astype(np.uint32), nothing, nothing == 0, 6144)

    table = to_table(block, is_sound=True)

    assert table.decode_ticks.tolist() == [0, 1024, 2048, 3072, 4096, 5120]
    assert to_table(block, is_sound=False).decode_ticks is ticks


def test_the_defaults_of_each_track_are_read() -> None:
    trex = full_box(b"trex", 0, 0, numbers(3, 1, 40, 0, NOT_SYNC))

    assert read_defaults(memoryview(trex)) == {3: Defaults(40, 0, NOT_SYNC)}


def test_a_segment_index_says_what_starts_where_and_when() -> None:
    rows = numbers(1000, 900, 0, 1 << 31 | 500, 450, 0, 2000, 900, 0)
    fields = struct.pack(">IIIIHH", 1, 90, 180, 64, 0, 3) + rows
    sidx = read_sidx(memoryview(full_box(b"sidx", 0, 0, fields)[8:]), end_at=936)

    assert sidx.anchors.offsets.tolist() == [1000, 2500]
    assert sidx.anchors.starts_ms.tolist() == [2000, 17_000]
    assert sidx.nested == ((2000, 2500),)
    assert sidx.end == 4500


def test_the_index_at_the_end_is_read_with_numbers_of_any_length() -> None:
    entries = b"".join(
        struct.pack(">II", ticks, offset) + b"\0\0\1" + b"\1" + b"\0\1"
        for ticks, offset in ((0, 500), (90, 900))
    )
    lengths = 2 << 4 | 0 << 2 | 1
    tfra = full_box(b"tfra", 0, 0, struct.pack(">III", 7, lengths, 2), entries)

    anchors = read_mfra(memoryview(tfra), {5: 1000, 7: 90})

    assert anchors is not None
    assert (anchors.offsets.tolist(), anchors.starts_ms.tolist()) == ([500, 900], [0, 1000])
    assert read_mfra(memoryview(tfra), {5: 1000}) is None


def test_what_lies_near_is_one_and_what_lies_outside_is_left_out() -> None:
    far = 1 << 20
    anchors = Anchors(np.array([10, 500, far, far + 9, 3 * far]), np.array([0, 1, 2, 3, 4]))

    thin = anchors.thinned(first_at=100, first_ms=None, object_bytes=2 * far)

    assert (thin.offsets.tolist(), thin.starts_ms.tolist()) == ([100, far], [1, 2])


def test_fragments_that_are_listed_out_of_order_are_not_believed() -> None:
    with pytest.raises(Malformed, match="another order"):
        Anchors(np.array([10, 20]), np.array([5, 4])).thinned(first_at=0, first_ms=None, object_bytes=99)

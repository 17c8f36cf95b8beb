"""Read groups of pictures of a stored MP4: from a key frame on, as a bare decoder wants them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.kernel.errors import Corrupt
from shared.media.mp4.annexb import starts_alone, to_annexb
from shared.media.mp4.boxes import Malformed
from shared.media.mp4.entries import NalConfig
from shared.media.mp4.ranges import RangeReader
from shared.media.mp4.tracks import Track

MIB = 1 << 20
# Of samples decoded at once. A 4K camera at 25 Mbit/s fills it in ten seconds; of a longer group the
# beginning is taken, which decodes as well.
MAX_GROUP_BYTES = 32 * MIB
MAX_STEPS_BACK = 8  # over key frames that are no IDR, in search of one that is
_PEEK_BYTES = 4096  # holds what comes before a picture: delimiter, parameter sets, x264's settings


@dataclass(frozen=True, slots=True)
class Group:
    """Samples [first, stop) of a track; the first can be decoded alone."""

    first: int
    stop: int
    config: NalConfig
    annexb: bytes

    def __len__(self) -> int:
        return self.stop - self.first


async def read_group(reader: RangeReader, track: Track, first: int, stop: int) -> Group:
    """Read samples [first, stop), or as many of them from the first on as may be held. Raises Corrupt."""
    config = track.entry.nal
    if config is None:
        raise Corrupt("the pictures are neither H.264 nor HEVC")
    offsets, sizes = track.samples.offsets[first:stop], track.samples.sizes[first:stop].astype(np.int64)
    start, ends = int(offsets[0]), offsets + sizes
    # In files of ours and of cameras samples lie in order; what does not is left out from there on.
    fits = (ends - start <= MAX_GROUP_BYTES) & (offsets >= start)
    count = len(fits) if fits.all() else int(np.argmin(fits))
    if count == 0:
        raise Corrupt(f"a picture has {int(sizes[0])} bytes")
    data = await reader.read(start, int(ends[:count].max()))
    samples = [
        data[offset - start : end - start]
        for offset, end in zip(offsets[:count].tolist(), ends[:count].tolist(), strict=True)
    ]
    try:
        return Group(first, first + count, config, to_annexb(config, samples))
    except Malformed as error:
        raise Corrupt(f"sample {first} and those after it are damaged: {error.message}") from error


async def is_idr(reader: RangeReader, track: Track, sample: int) -> bool:
    """Tell by the first bytes of a sample whether its picture needs none before it."""
    config = track.entry.nal
    if config is None:
        return False
    start, size_bytes = int(track.samples.offsets[sample]), int(track.samples.sizes[sample])
    told = None
    for most_bytes in (_PEEK_BYTES, MAX_GROUP_BYTES):
        if told is None:
            beginning = await reader.read(start, start + min(size_bytes, most_bytes))
            told = starts_alone(beginning, config)
    return bool(told)


async def idr_before(reader: RangeReader, track: Track, sample: int, *, not_before: int) -> int:
    """Return the last sample up to `sample` that is an IDR; `not_before` is taken to be one."""
    newest = track.samples.sync_before(sample) - 1
    for index in range(newest, max(newest - MAX_STEPS_BACK, -1), -1):
        candidate = track.samples.sync_at(index)
        if candidate <= not_before:
            break
        if await is_idr(reader, track, candidate):
            return candidate
    return not_before

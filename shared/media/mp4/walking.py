"""Walk over the boxes of a part of a fragmented MP4 by their headers, and read those of its fragments."""

from __future__ import annotations

from collections.abc import Sequence

from shared.media.mp4.boxes import LARGE_HEADER_BYTES, MAX_ROWS, Header, Malformed, read_header
from shared.media.mp4.fragments import Block, join_blocks, read_fragment, to_block
from shared.media.mp4.ranges import Window
from shared.media.mp4.tracks import Movie, Track

MIB = 1 << 20
HEAD_BYTES = 4096  # holds the header of a fragment of a few seconds
NEAR_BYTES = 64 * 1024  # fragments nearer to each other than this are read several at once, media and all
MAX_MOOF_BYTES = 8 * MIB  # of half a million samples; minutes of camera have 100 KiB
MAX_FRAGMENTS = 1 << 20  # of one object; a frame each is nine hours
BLOCKS_AT_ONCE = (
    256  # are joined: a fragment of one frame takes more memory for its arrays than for its samples
)


class FragmentWalk:
    """Walks over the boxes of a part of a file, and gathers what its fragments say of their samples."""

    def __init__(self, window: Window, movie: Movie, start: int, end: int) -> None:
        self.at = start
        self.truncated = False
        self._window = window
        self._end = end
        self._object_bytes = window.object_bytes
        self._numbers = {track.number for track in movie.tracks}
        self._defaults = movie.defaults or {}
        self._blocks: dict[int, list[Block]] = {}
        self._ends: dict[int, int] = {}
        self._samples = 0
        self._moof_bytes = HEAD_BYTES
        self._stride_bytes = end - start  # from one fragment to the next, as far as is known

    def begin(self, tracks: Sequence[Track]) -> None:
        """Start with the samples that the index itself lists."""
        for track in tracks:
            self._ends[track.number] = 0
            if len(track.samples):
                self._add(track.number, to_block(track.samples))

    async def run(self) -> None:
        """Walk to the end. Raises Malformed, SourceBroken, Transient."""
        fragments, before = 0, None
        while self.at < self._end and not self.truncated:
            header = await self._header()
            if header is None:
                self.truncated = True
                return
            end = self._object_bytes if header.size_bytes is None else self.at + header.size_bytes
            if header.kind == b"moof":
                fragments += 1
                if fragments > MAX_FRAGMENTS:
                    raise Malformed("it has too many fragments")
                self._stride_bytes = self.at - before if before is not None else self._stride_bytes
                before = self.at
                await self._take(header, end)
            self.at = end
        self.truncated = self.truncated or self.at > self._object_bytes

    async def _header(self) -> Header | None:
        near = self._stride_bytes <= NEAR_BYTES
        read_bytes = min(NEAR_BYTES if near else self._moof_bytes, self._end - self.at)
        return read_header(
            await self._window.look(self.at, needed_bytes=LARGE_HEADER_BYTES, read_bytes=read_bytes)
        )

    async def _take(self, header: Header, end: int) -> None:
        """Read a fragment. One whose samples the object does not hold to their end is the last."""
        if end > self._object_bytes:
            self.truncated = True
            return
        size_bytes = end - self.at
        if size_bytes > MAX_MOOF_BYTES:
            raise Malformed(f"a fragment's header (moof) says it is {size_bytes} bytes long")
        self._moof_bytes = min(max(self._moof_bytes, size_bytes + LARGE_HEADER_BYTES), NEAR_BYTES)
        blocks = read_fragment(
            await self._window.take(self.at + header.header_bytes, end),
            at=self.at,
            defaults=self._defaults,
            ends_ticks=self._ends,
            object_bytes=self._object_bytes,
        )
        wanted = [(number, block) for number, block in blocks if number in self._numbers]
        if any(int((block.offsets + block.sizes).max()) > self._object_bytes for _, block in wanted):
            if not await self._is_last(end):
                raise Malformed("samples of a fragment lie beyond the end of the file")
            self.truncated = True
            return
        for number, block in wanted:
            self._add(number, block)

    async def _is_last(self, at: int) -> bool:
        """Tell whether the object ends within the box at `at`."""
        header = read_header(
            await self._window.look(at, needed_bytes=LARGE_HEADER_BYTES, read_bytes=LARGE_HEADER_BYTES)
        )
        return header is None or header.size_bytes is None or at + header.size_bytes > self._object_bytes

    def _add(self, number: int, block: Block) -> None:
        self._samples += len(block)
        if self._samples > min(MAX_ROWS, self._object_bytes):
            raise Malformed(f"its fragments declare {self._samples} samples")
        self._ends[number] = block.end_ticks
        blocks = self._blocks.setdefault(number, [])
        blocks.append(block)
        if len(blocks) % BLOCKS_AT_ONCE == 0:
            blocks[-BLOCKS_AT_ONCE:] = [join_blocks(blocks[-BLOCKS_AT_ONCE:])]

    def blocks(self) -> dict[int, Block]:
        return {number: join_blocks(blocks) for number, blocks in self._blocks.items()}

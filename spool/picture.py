"""Draw what a synthetic camera sees, and read back the number that each of its frames carries. Pure.

A frame is a panning scene with a clock at the top left (HH:MM:SS.mmm, UTC, in seven segments: a bare
machine has no font) and two rows of black and white blocks along the bottom edge: 24 bits of frame number
and 8 bits that check them. Blocks are a sixteenth of the picture wide, so they survive encoding and scaling.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.kernel.errors import Refused

Luma: TypeAlias = NDArray[np.uint8]
_Mask: TypeAlias = NDArray[np.bool_]

NUMBER_BITS = 24  # 155 hours at 30 frames a second
_CHECK_BITS = 8
_BLOCK_ROWS = 2
_BLOCK_COLUMNS = (NUMBER_BITS + _CHECK_BITS) // _BLOCK_ROWS
_BAND_SHARE = 6  # the blocks fill the lowest sixth of the picture
_BLACK, _GREY, _WHITE = 16, 128, 235  # BT.601 studio range, and the chroma of no colour
_CERTAIN = 48  # a block's mean lies at least this far from the middle, or it is not a block

MIN_WIDTH_PIXELS = 128  # below this a clock's segment is thinner than a pixel
MIN_HEIGHT_PIXELS = 72
_PAN_PIXELS = 2  # per frame; even, so that the chroma moves by whole pixels

# Segments of each digit, clockwise from the top, then the middle: a b c d e f g.
_SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


class Scene:
    """Everything of a picture that is the same in each frame, drawn once."""

    def __init__(self, width: int, height: int, *, seed: int) -> None:
        """Prepare a scene of `width` x `height` pixels, both even. Equal seeds give equal scenes."""
        if width % 2 or height % 2 or width < MIN_WIDTH_PIXELS or height < MIN_HEIGHT_PIXELS:
            raise Refused(
                f"a picture has even sides and at least {MIN_WIDTH_PIXELS}x{MIN_HEIGHT_PIXELS} pixels"
            )
        self.width, self.height = width, height
        self._band_rows = np.arange(height // _BAND_SHARE) * _BLOCK_ROWS // (height // _BAND_SHARE)
        self._band_columns = np.arange(width) * _BLOCK_COLUMNS // width
        self._glyphs = _draw_glyphs(width // 24)
        random = np.random.default_rng(seed)
        self._luma = _draw_texture(random, width, height, around=110, spread=60)
        self._blue = _draw_texture(random, width // 2, height // 2, around=_GREY, spread=40)
        self._red = _draw_texture(random, width // 2, height // 2, around=_GREY, spread=40)

    def draw(self, number: int, *, shown_ms: int) -> bytes:
        """Return frame `number` as planar yuv420p; its clock shows `shown_ms` (Unix milliseconds, UTC)."""
        left = number * _PAN_PIXELS % self.width
        luma = self._luma[:, left : left + self.width].copy()
        self._draw_clock(luma, shown_ms)
        luma[-len(self._band_rows) :] = _number_blocks(number)[self._band_rows][:, self._band_columns]
        return luma.tobytes() + self._draw_chroma(self._blue, left) + self._draw_chroma(self._red, left)

    def _draw_chroma(self, texture: Luma, left: int) -> bytes:
        plane = texture[:, left // 2 : (left + self.width) // 2].copy()
        plane[-(len(self._band_rows) // 2) :] = _GREY
        return plane.tobytes()

    def _draw_clock(self, luma: Luma, shown_ms: int) -> None:
        shown = datetime.fromtimestamp(shown_ms // 1000, UTC)
        text = f"{shown:%H:%M:%S}.{shown_ms % 1000:03d}"
        mask = np.concatenate([self._glyphs[character] for character in text], axis=1)
        top, left = self.height // 24, self.width // 40
        luma[top : top + mask.shape[0], left : left + mask.shape[1]] = np.where(mask, _WHITE, _BLACK)


def read_frame_number(luma: Luma) -> int:
    """Return the number drawn into a picture (height x width, any size). Raises ValueError if there is none.

    Every block must be clearly black or white and the check bits must fit the number.
    """
    height, width = luma.shape
    block_height, block_width = height / _BAND_SHARE / _BLOCK_ROWS, width / _BLOCK_COLUMNS
    bits = 0
    for row in range(_BLOCK_ROWS):
        middle = height - block_height * (_BLOCK_ROWS - row - 0.5)
        for column in range(_BLOCK_COLUMNS):
            center = block_width * (column + 0.5)
            mean = float(_patch(luma, middle, block_height / 4, center, block_width / 4).mean())
            if abs(mean - _GREY) < _CERTAIN:
                raise ValueError(f"block {column} of row {row} is neither black nor white: {mean:.0f}")
            bits = bits << 1 | (mean > _GREY)
    number, check = bits >> _CHECK_BITS, bits & ((1 << _CHECK_BITS) - 1)
    if check != _check_bits(number):
        raise ValueError(f"the check bits do not fit frame number {number}")
    return number


def _patch(luma: Luma, middle: float, rows: float, center: float, columns: float) -> Luma:
    """Return the pixels around a point, at least one."""
    top, left = int(middle - rows), int(center - columns)
    return luma[top : max(top + 1, int(middle + rows)), left : max(left + 1, int(center + columns))]


def _number_blocks(number: int) -> Luma:
    if not 0 <= number < 1 << NUMBER_BITS:
        raise Refused(f"a frame number has {NUMBER_BITS} bits, {number} does not fit")
    bits = number << _CHECK_BITS | _check_bits(number)
    octets = np.frombuffer(bits.to_bytes((NUMBER_BITS + _CHECK_BITS) // 8, "big"), np.uint8)
    return np.where(np.unpackbits(octets).reshape(_BLOCK_ROWS, _BLOCK_COLUMNS), _WHITE, _BLACK).astype(
        np.uint8
    )


def _check_bits(number: int) -> int:
    # CRC-32 of three zero octets does not end in a zero octet, so a black picture carries no number.
    return zlib.crc32(number.to_bytes(NUMBER_BITS // 8, "big")) & ((1 << _CHECK_BITS) - 1)


def _draw_texture(random: np.random.Generator, width: int, height: int, *, around: int, spread: int) -> Luma:
    """Return a picture twice as wide as asked for whose halves are equal, so that panning never ends."""
    coarse = random.normal(around, spread / 2, (height // 16 + 1, width // 16 + 1))
    fine = np.kron(coarse, np.ones((16, 16)))[:height, :width]
    noisy = fine + random.normal(0, 3, fine.shape)
    return np.tile(noisy.clip(_BLACK, _WHITE).astype(np.uint8), (1, 2))


def _draw_glyphs(cell_pixels: int) -> dict[str, _Mask]:
    """Return a mask for each character of a clock; digits are `cell_pixels` wide, gap included."""
    height, wide, thick = (
        cell_pixels * 3 // 2,
        cell_pixels - max(1, cell_pixels // 5),
        max(1, cell_pixels // 6),
    )
    middle = height // 2
    strokes = {
        "a": (slice(0, thick), slice(0, wide)),
        "b": (slice(0, middle), slice(wide - thick, wide)),
        "c": (slice(middle, height), slice(wide - thick, wide)),
        "d": (slice(height - thick, height), slice(0, wide)),
        "e": (slice(middle, height), slice(0, thick)),
        "f": (slice(0, middle), slice(0, thick)),
        "g": (slice(middle - thick // 2, middle - thick // 2 + thick), slice(0, wide)),
    }
    glyphs: dict[str, _Mask] = {}
    for digit, segments in enumerate(_SEGMENTS):
        glyphs[str(digit)] = mask = np.zeros((height, cell_pixels), dtype=np.bool_)
        for segment in segments:
            mask[strokes[segment]] = True
    glyphs["."] = np.zeros((height, cell_pixels // 2), dtype=np.bool_)
    glyphs["."][height - thick :, :thick] = True
    glyphs[":"] = np.zeros((height, cell_pixels // 2), dtype=np.bool_)
    glyphs[":"][height // 4 : height // 4 + thick, :thick] = True
    glyphs[":"][height * 3 // 4 - thick : height * 3 // 4, :thick] = True
    return glyphs

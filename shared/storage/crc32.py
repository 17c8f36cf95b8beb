"""CRC32 of a whole from those of its parts, without its bytes. Pure.

Parts of an object may be copied inside of the store, or be sent in another order than they lie in. A CRC is
linear: that of two parts is that of the first, carried on over as many zero bytes as the second has, added to
that of the second. To carry it on over n bytes is to multiply by x^8n modulo the polynomial, which takes as
many steps as n has bits.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

_POLYNOMIAL = 0xEDB88320  # of zlib, with the bits in reverse: the highest is the factor of x^0
_ONE = 1 << 31
_X8 = 1 << 23


def combined(parts: Iterable[tuple[int, int]]) -> int:
    """Return the CRC32 of parts joined in this order; each is told by its CRC32 and its length in bytes."""
    whole = 0
    for crc32, size_bytes in parts:
        whole = _product(whole, _power(size_bytes)) ^ crc32
    return whole


def encoded(crc32: int) -> str:
    """Return it as S3 writes it."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def decoded(told: str | None) -> int | None:
    """Read what S3 wrote; None for nothing, and for the checksum of checksums of an object in parts."""
    if told is None or "-" in told:
        return None
    try:
        raw = base64.b64decode(told, validate=True)
    except binascii.Error:
        return None
    return int.from_bytes(raw, "big") if len(raw) == 4 else None


def in_hex(crc32: int | None) -> str | None:
    """Return it as Spool tells it: eight digits."""
    return None if crc32 is None else f"{crc32:08x}"


def _power(size_bytes: int) -> int:
    """Return x^(8 * size_bytes) modulo the polynomial."""
    power, square = _ONE, _X8
    while size_bytes:
        if size_bytes & 1:
            power = _product(power, square)
        square = _product(square, square)
        size_bytes >>= 1
    return power


def _product(first: int, second: int) -> int:
    """Multiply two polynomials modulo that of CRC32."""
    product = 0
    for _ in range(32):
        if first & _ONE:
            product ^= second
        first = first << 1 & 0xFFFFFFFF
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product

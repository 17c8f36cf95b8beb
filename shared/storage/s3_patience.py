"""How long the bytes of one object may take: what comes for ever, a little at a time, is given up."""

from __future__ import annotations

from shared.kernel.errors import Unavailable
from shared.storage.s3_limits import S3Limits


class Patience:
    """Counts the time that was waited for bytes, and not for whoever takes them."""

    def __init__(self, key: str, limits: S3Limits) -> None:
        """Begin with the patience that all bytes of `key` together are given."""
        self._key = key
        self._limits = limits
        self._waited_s = 0.0
        self._came_bytes = 0

    def waited(self, seconds: float, came_bytes: int) -> None:
        """Note a wait, and how much it brought. Raises Unavailable when it is too long for so little."""
        self._waited_s += seconds
        self._came_bytes += came_bytes
        limits = self._limits
        if self._waited_s > limits.body_s + self._came_bytes / limits.slowest_bytes:
            waited = f"{self._came_bytes} bytes in {self._waited_s:.0f} s"
            raise Unavailable(f"{self._key} comes too slowly: {waited}")

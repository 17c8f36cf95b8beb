"""What a clock is. The real one is in `shared.runtime.clock`."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Two readings that must not be confused: the time of day, and time that only moves forward."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z. May jump when the machine's clock is set."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary moment. Never jumps; the only measure of a lease or a limit."""
        ...

"""How patient a store is with its server, and how much it asks of it at the same time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.kernel.errors import Refused

# What the address of a store may set, and between which numbers.
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "connect_s": (0.1, 300),
    "read_s": (1, 3600),
    "request_s": (1, 86_400),
    "body_s": (1, 86_400),
    "attempts": (1, 20),
    "connections": (4, 1024),
    "readers": (1, 8),
}
OPTIONS = frozenset(_BOUNDS)


@dataclass(frozen=True, slots=True)
class S3Limits:
    """How long the store waits for its server, how often it asks again, and how many things at once."""

    connect_s: float = 5.0
    read_s: float = 30.0  # without a byte; also what a large Complete may take before it is asked again
    request_s: float = 600.0  # for all of a request, up to the body of its answer
    body_s: float = 300.0  # for the bytes of an object, and a second more for each `slowest_bytes` of them
    slowest_bytes: int = 64 << 10
    attempts: int = 5
    wait_s: float = 0.2  # before the second attempt; doubled each time, with jitter
    wait_max_s: float = 5.0
    connections: int = 64
    readers: int = 3  # of one long range at the same time; each but the first holds up to `piece_bytes`
    piece_bytes: int = 8 << 20
    page_keys: int = 1000  # S3's own limit for one page of a list

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> S3Limits:
        """Read the options of an S3 address. Raises Refused, naming the option and what it can be."""
        given = {name: _number(name, options[name]) for name in _BOUNDS if options.get(name)}
        seconds = {name: number for name, number in given.items() if name.endswith("_s")}
        counts = {name: int(number) for name, number in given.items() if name not in seconds}
        return cls(**seconds, **counts)  # type: ignore[arg-type]  # mypy takes all keywords for one kind


def _number(name: str, text: str) -> float:
    low, high = _BOUNDS[name]
    try:
        number = float(text) if name.endswith("_s") else int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        what = "a number of seconds" if name.endswith("_s") else "a whole number"
        hint = f"{what} from {low:g} to {high:g}"
        raise Refused(f"the option {name} of the S3 address cannot be that", hint=hint)
    return number

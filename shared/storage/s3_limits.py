"""How patient a store is with its server, and how much it asks of it at the same time. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Limits:
    """How long the store waits for its server, and how often it asks again."""

    connect_s: float = 5.0
    read_s: float = 30.0  # without a byte; also what a large Complete may take before it is asked again
    request_s: float = 600.0  # for all of a request, up to the body of its answer
    body_s: float = 300.0  # for the bytes of an object, and a second more for each `slowest_bytes` of them
    slowest_bytes: int = 64 << 10
    attempts: int = 5
    wait_s: float = 0.2  # before the second attempt; doubled each time, with jitter
    wait_max_s: float = 5.0
    connections: int = 64
    page_keys: int = 1000  # S3's own limit for one page of a list

"""What Spool measures of its ffmpegs."""

from __future__ import annotations

from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

# A decode of one group of pictures takes tens of milliseconds, a clip encoded anew some minutes.
_SECONDS_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class FfmpegMetrics:
    """Counts of started ffmpegs by purpose, how they ended and how long they took."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics. Once per registry: a second time is an error of prometheus-client."""
        self.runs = Counter(
            "spool_ffmpeg_runs",
            "ffmpeg processes that ended, by purpose and by how they ended.",
            ("purpose", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "spool_ffmpeg_duration_seconds",
            "Wall time of an ffmpeg process, from start to end.",
            ("purpose",),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.running = Gauge("spool_ffmpeg_running", "ffmpeg processes that run now.", registry=registry)


@cache
def metrics_of_process() -> FfmpegMetrics:
    """Return the one set that all engines of this process count in."""
    return FfmpegMetrics()

"""What Spool counts of events, work and outbox. One registry per process: prometheus-client's own."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# From a row that is written in a millisecond to an hour of video that is encoded anew.
_WORK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)

EVENTS_RECEIVED = Counter(
    "spool_events_received",
    "Deliveries written into the inbox, by what they were: accepted, duplicate, dead.",
    ("subscription", "result"),
)
WORK_IN_PROCESS = Gauge("spool_work_in_process", "Pieces of work being done now.", ("subscription",))
WORK_PROCESSED = Counter(
    "spool_work_processed",
    "Pieces of work that a hand let go of, by how: done, later, retried, dead, cancelled, released, lost.",
    ("subscription", "status"),
)
WORK_SECONDS = Histogram(
    "spool_work_duration_seconds",
    "From the start of the handler to the commit of its outcome.",
    ("subscription",),
    buckets=_WORK_SECONDS,
)
LEASES_LOST = Counter(
    "spool_inbox_leases_lost",
    "Claims that ran out or were taken over while a hand worked.",
    ("subscription",),
)
INBOX_READY = Gauge("spool_inbox_ready", "Rows that could be worked now.", ("subscription",))
INBOX_OLDEST_SECONDS = Gauge(
    "spool_inbox_oldest_seconds", "Age of the oldest row that could be worked now.", ("subscription",)
)
OUTBOX_UNSENT = Gauge("spool_outbox_unsent", "Events that are committed and not yet published.")
OUTBOX_OLDEST_SECONDS = Gauge(
    "spool_outbox_oldest_seconds", "Age of the oldest event that is committed and not yet published."
)
OUTBOX_PUBLISHED = Counter("spool_outbox_published", "Events published and confirmed.", ("type",))
OUTBOX_REFUSED = Counter("spool_outbox_refused", "Events that no transport will ever take.", ("type",))
OUTBOX_UNROUTABLE = Counter(
    "spool_outbox_unroutable", "Attempts to publish a command that nobody has subscribed to.", ("type",)
)
UNROUTED = Counter("spool_unrouted", "Facts published while nobody was subscribed to them.", ("type",))
BYTES_READ = Counter("spool_storage_bytes_read", "Bytes of objects received from the store.")
BYTES_WRITTEN = Counter("spool_storage_bytes_written", "Bytes of objects given to the store.")
UPLOADS_SWEPT = Counter(
    "spool_uploads_swept", "Unfinished uploads that were removed because nobody would finish them."
)

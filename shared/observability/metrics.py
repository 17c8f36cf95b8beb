"""What Spool counts of messages, work and outbox. One registry per process: prometheus-client's own.

The names are those that FastStream's users know, under our prefix, and units are base units.
Labels are bounded: a subscription is a queue that a service declared (`clipper.clip_requested`), a type is
one of the registry's. What is read from the database is the same in each process: aggregate it with max.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

# From a row that is written in a millisecond to an hour of video that is encoded anew.
_WORK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
# From a local commit to a broker whose leader moves.
_PUBLISH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# From a bare camera message to the most that a transport carries.
_MESSAGE_BYTES = (256, 512, 1024, 2048, 4096, 16384, 65536, 262144)

_SHARED = "The same from each process, out of the database: aggregate with max."

RECEIVED_MESSAGES = Counter(
    "spool_received_messages",
    "Events of acknowledged deliveries, by what they were: accepted, duplicate, dead, ignored.",
    ("broker", "subscription", "result"),
)
RECEIVED_MESSAGES_SIZE = Histogram(
    "spool_received_messages_size_bytes",
    "Sizes of the bodies of deliveries.",
    ("broker", "subscription"),
    buckets=_MESSAGE_BYTES,
)
RECEIVED_MESSAGES_HELD = Gauge(
    "spool_received_messages_held",
    "Deliveries that this process has taken, or was sent ahead, and has not settled.",
    ("broker",),
)
HANDS = Gauge(
    "spool_hands",
    "Pieces of work that this process does at once at most: its capacity.",
    ("subscription",),
)
IN_PROCESS = Gauge(
    "spool_received_messages_in_process",
    "Pieces of work that this process does now; divided by spool_hands it is how busy it is.",
    ("subscription",),
)
PROCESSED = Counter(
    "spool_received_processed_messages",
    "Pieces of work that a hand let go of, by how: done, later, retried, unavailable, dead, cancelled, "
    "released, lost.",
    ("subscription", "status"),
)
PROCESSED_SECONDS = Histogram(
    "spool_received_processed_messages_duration_seconds",
    "From the start of the handler to the commit of its outcome.",
    ("subscription",),
    buckets=_WORK_SECONDS,
)
PROCESSED_EXCEPTIONS = Counter(
    "spool_received_processed_messages_exceptions",
    "What handlers raised, by its class.",
    ("subscription", "exception_type"),
)
LEASES_LOST = Counter(
    "spool_inbox_leases_lost",
    "Claims that ran out, were taken over, or could not be concluded. Above zero: look at the database.",
    ("subscription",),
)
INBOX_PAUSED = Gauge(
    "spool_inbox_paused",
    "1 while this process takes nothing because a dependency is away, else 0; the log says which.",
    ("subscription",),
)
INBOX_READY = Gauge(
    "spool_inbox_ready", f"Rows that could be worked now, up to 10 000. {_SHARED}", ("subscription",)
)
INBOX_READY_AGE = Gauge(
    "spool_inbox_ready_oldest_age_seconds",
    f"For how long the oldest row that could be worked now has been so. {_SHARED}",
    ("subscription",),
)
DEAD_LETTERS = Gauge(
    "spool_dead_letters",
    f"Dead letters by where they lie: inbox, broker, outbox; up to 10 000 of each. {_SHARED}",
    ("service", "origin"),
)
DEAD_LETTERS_AGE = Gauge(
    "spool_dead_letters_oldest_age_seconds",
    f"For how long the oldest dead letter has been one; 0 when there is none. {_SHARED}",
    ("service", "origin"),
)
OUTBOX_UNSENT = Gauge("spool_outbox_unsent", f"Events that are committed and not yet published. {_SHARED}")
OUTBOX_LAG = Gauge(
    "spool_outbox_lag_seconds",
    f"Age of the oldest event that is committed and not yet published; 0 when there is none. {_SHARED}",
)
PUBLISHED_MESSAGES = Counter(
    "spool_published_messages",
    "Attempts to publish an event of the outbox, by how they ended: success (confirmed), "
    "unroutable (a command that nobody has subscribed to), refused (no transport will ever take it), "
    "error (the broker was away; they come again).",
    ("broker", "type", "status"),
)
PUBLISHED_MESSAGES_SIZE = Histogram(
    "spool_published_messages_size_bytes",
    "Sizes of the bodies of events that were published and confirmed.",
    ("broker",),
    buckets=_MESSAGE_BYTES,
)
PUBLISHED_MESSAGES_SECONDS = Histogram(
    "spool_published_messages_duration_seconds",
    "From handing a batch of events to the broker's client to the last of its confirms, or to its failure.",
    ("broker",),
    buckets=_PUBLISH_SECONDS,
)
PUBLISHED_MESSAGES_EXCEPTIONS = Counter(
    "spool_published_messages_exceptions",
    "Batches of events that could not be published as a whole, by the class of the failure.",
    ("broker", "exception_type"),
)
UNROUTED = Counter(
    "spool_unrouted", "Facts published while nobody was subscribed to them: no fault.", ("type",)
)
BUS_CONNECTED = Gauge(
    "spool_bus_connected", "1 while this process has its connections to the broker, else 0.", ("broker",)
)
BUS_CONSUMING = Gauge(
    "spool_bus_consuming", "1 while every subscription of this process is attached, else 0.", ("broker",)
)
DATABASE_WRITE_QUEUE = Gauge(
    "spool_database_write_queue_length",
    "Units that wait for the one writing connection of SQLite; always 0 on PostgreSQL.",
)
STORAGE_READ_BYTES = Counter("spool_storage_read_bytes", "Bytes of objects received from the store.")
STORAGE_WRITTEN_BYTES = Counter("spool_storage_written_bytes", "Bytes of objects given to the store.")
STORAGE_COPIED_BYTES = Counter(
    "spool_storage_copied_bytes", "Bytes of objects that the store copied by itself, out of other objects."
)
UPLOADS_SWEPT = Counter(
    "spool_uploads_swept", "Unfinished uploads that were removed because nobody would finish them."
)
UPLOADS_RECOVERED = Counter(
    "spool_uploads_recovered", "Captures that were completed from the parts that a dead writer had sent."
)
UPLOADS_ORPHANED = Gauge(
    "spool_uploads_orphaned",
    "Unfinished uploads without a claim that lives, left by the last sweep of this process: too young, or "
    "refused.",
)


@dataclass(frozen=True, slots=True)
class Entering:
    """What is counted of the deliveries of one subscription. Labels are looked up once, not per event."""

    accepted: Counter
    duplicate: Counter
    dead: Counter
    ignored: Counter  # deliveries that hold no event for this subscription, as a test of S3
    size: Histogram

    @classmethod
    def of(cls, broker: str, subscription: str) -> Entering:
        accepted, duplicate, dead, ignored = (
            RECEIVED_MESSAGES.labels(broker, subscription, result)
            for result in ("accepted", "duplicate", "dead", "ignored")
        )
        return cls(accepted, duplicate, dead, ignored, RECEIVED_MESSAGES_SIZE.labels(broker, subscription))

    def count(self, *, accepted: int, duplicate: int, dead: int) -> None:
        """Count a batch that was written."""
        for counter, number in ((self.accepted, accepted), (self.duplicate, duplicate), (self.dead, dead)):
            if number:
                counter.inc(number)


@dataclass(frozen=True, slots=True)
class Working:
    """What is counted of the work of one subscription. Labels are looked up once, not per event."""

    subscription: str
    in_process: Gauge
    seconds: Histogram

    @classmethod
    @cache
    def of(cls, subscription: str) -> Working:
        """Return the one of a subscription: a process has a bounded number of them."""
        LEASES_LOST.labels(subscription)  # shown from the first moment, so that a first one is an increase
        return cls(subscription, IN_PROCESS.labels(subscription), PROCESSED_SECONDS.labels(subscription))

    def ended(self, status: str, seconds: float) -> None:
        """Count a piece of work that a hand let go of."""
        _processed(self.subscription, status).inc()
        self.seconds.observe(seconds)


@cache
def _processed(subscription: str, status: str) -> Counter:
    return PROCESSED.labels(subscription, status)

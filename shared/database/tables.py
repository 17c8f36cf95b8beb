"""The tables of inbox, outbox and upload journal. Services keep their own tables in their `store.py`.

`spool/migrations/` makes them; a test compares the two.
"""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

metadata = MetaData()

# SQLite gives an INTEGER PRIMARY KEY its rowid; a BIGINT would be an ordinary column.
RowId = BigInteger().with_variant(Integer, "sqlite")


class State(IntEnum):
    """Where a piece of work is. Only `READY` and `WORKING` are unfinished."""

    READY = 0
    WORKING = 1
    DONE = 2
    DEAD = 3


inbox = Table(
    "inbox",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("consumer", String(128), nullable=False),  # the subscription's queue
    Column("source", String(512), nullable=False),
    Column("event_id", String(256), nullable=False),
    Column("type", String(128), nullable=False),
    Column("subject", String(1024), nullable=False),
    Column("body", LargeBinary),  # raw, as it came; gone when done, kept when dead
    Column("content_type", String(128)),
    Column("traceparent", String(64)),
    Column("tracestate", String(512)),
    Column("ordered", Boolean, nullable=False, default=False),
    Column("state", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("token", BigInteger, nullable=False, default=0),  # grows with each claim
    Column("worker", String(128)),
    Column("lease_until_ms", BigInteger),
    Column("not_before_ms", BigInteger),
    Column("waiting", Boolean, nullable=False, default=False),  # for an arrival: does not hold its subject
    Column("wake_count", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("replayed_ms", BigInteger),  # by a person: waits are counted anew from here
    Column("failing_since_ms", BigInteger),  # the first of the failures that it is retried after
    Column("claimed_ms", BigInteger),
    Column("done_ms", BigInteger),
    Column("outcome", String(64)),  # types of the events that it led to; `dead`, `cancelled`, `dropped`, …
    Column("reason", Text),  # of the last failure, wait or death
    Column("traceback_digest", String(64)),
    Column("handler", String(128)),  # that could not do it, when dead
    Index("inbox_event", "consumer", "source", "event_id", unique=True),
    Index(
        "inbox_open",
        "consumer",
        "id",
        sqlite_where=text("state IN (0, 1)"),
        postgresql_where=text("state IN (0, 1)"),
    ),
    Index(
        "inbox_subject",
        "consumer",
        "subject",
        "id",
        sqlite_where=text("state IN (0, 1)"),
        postgresql_where=text("state IN (0, 1)"),
    ),
    Index(
        "inbox_lane",
        "consumer",
        "subject",
        unique=True,
        sqlite_where=text("state = 1 AND ordered"),
        postgresql_where=text("state = 1 AND ordered"),
    ),
    Index(
        "inbox_dead",
        "id",
        sqlite_where=text("state = 3"),
        postgresql_where=text("state = 3"),
    ),
    Index("inbox_done", "done_ms", sqlite_where=text("state = 2"), postgresql_where=text("state = 2")),
    sqlite_autoincrement=True,
)

inbox_wake = Table(
    "inbox_wake",
    metadata,
    Column("inbox_id", RowId, ForeignKey("inbox.id", ondelete="CASCADE"), primary_key=True),
    Column("wake_key", String(512), primary_key=True),
    Index("inbox_wake_key", "wake_key"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("subject", String(1024), nullable=False),
    Column("sequence", BigInteger, nullable=False),  # its place among those of its subject
    Column("event_id", String(256), nullable=False),
    Column("source", String(512), nullable=False),
    Column("type", String(128), nullable=False),
    Column("mandatory", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("traceparent", String(64)),
    Column("tracestate", String(512)),
    Column("created_ms", BigInteger, nullable=False),
    Column("sent_ms", BigInteger),
    Column("refused", Text),  # why it can never be published: a dead letter of the outbox
    Index("outbox_order", "subject", "sequence", unique=True),
    Index(
        "outbox_unsent",
        "subject",
        "sequence",
        sqlite_where=text("sent_ms IS NULL AND refused IS NULL"),
        postgresql_where=text("sent_ms IS NULL AND refused IS NULL"),
    ),
    Index(
        "outbox_refused",
        "id",
        sqlite_where=text("refused IS NOT NULL"),
        postgresql_where=text("refused IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

# One row per subject: writers update it first, which gives them their turn; relays claim it.
outbox_subject = Table(
    "outbox_subject",
    metadata,
    Column("subject", String(1024), primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("sent_sequence", BigInteger, nullable=False, default=0),  # up to here sent or refused
    Column("relay", String(128)),
    # No relay takes the subject before this: a lease while `relay` is set, a pause after a failure otherwise.
    # Never NULL, so that the oldest turn comes first on SQLite and PostgreSQL alike.
    Column("lease_until_ms", BigInteger, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),  # failed ones since the last success
    Index(
        "outbox_pending",
        "lease_until_ms",
        sqlite_where=text("last_sequence > sent_sequence"),
        postgresql_where=text("last_sequence > sent_sequence"),
    ),
    Index(
        "outbox_quiet",
        "lease_until_ms",
        sqlite_where=text("last_sequence <= sent_sequence"),
        postgresql_where=text("last_sequence <= sent_sequence"),
    ),
)

tick = Table(
    "tick",
    metadata,
    Column("task", String(128), primary_key=True),
    Column("due_ms", BigInteger, nullable=False),  # the last tick that somebody claimed
    Column("worker", String(128)),
)

upload = Table(
    "upload",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("store", String(512), nullable=False),
    Column("key", String(1024), nullable=False),
    Column("upload_id", String(1024)),  # NULL: intended, perhaps not yet created
    Column("inbox_id", BigInteger),  # the claim on whose behalf it is written
    Column("token", BigInteger),
    Column("started_ms", BigInteger, nullable=False),
    Column("parts", Integer, nullable=False, default=0),
    Column("is_capture", Boolean, nullable=False, default=False, server_default=false()),
    Column("recovering_ms", BigInteger),  # from here on it is the sweeper who completes it
    Column("recovered_ms", BigInteger),  # it is an object now; the row stays for a while, to tell so
    Index("upload_key", "store", "key"),
    sqlite_autoincrement=True,
)

upload_part = Table(
    "upload_part",
    metadata,
    Column("upload_row", RowId, ForeignKey("upload.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("etag", String(128), nullable=False),
    Column("crc32", BigInteger),  # NULL: the store did not tell
)

"""The tables of the first version: inbox, outbox, ticks, uploads, and the clipper's.

Written out, and importing nothing of ours: a revision must mean the same for ever.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables."""
    _inbox()
    _inbox_wake()
    _outbox()
    _outbox_subject()
    _tick()
    _upload()
    _clipper_source()
    _clipper_clip()


def _partial_index(name: str, table: str, columns: list[str], *, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("consumer", sa.String(128), nullable=False),
        sa.Column("source", sa.String(512), nullable=False),
        sa.Column("event_id", sa.String(256), nullable=False),
        sa.Column("type", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(1024), nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("content_type", sa.String(128)),
        sa.Column("traceparent", sa.String(64)),
        sa.Column("ordered", sa.Boolean, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.String(128)),
        sa.Column("lease_until_ms", sa.BigInteger),
        sa.Column("not_before_ms", sa.BigInteger),
        sa.Column("waiting", sa.Boolean, nullable=False),
        sa.Column("wake_count", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.Column("replayed_ms", sa.BigInteger),
        sa.Column("failing_since_ms", sa.BigInteger),
        sa.Column("claimed_ms", sa.BigInteger),
        sa.Column("done_ms", sa.BigInteger),
        sa.Column("outcome", sa.String(64)),
        sa.Column("reason", sa.Text),
        sa.Column("traceback_digest", sa.String(64)),
        sqlite_autoincrement=True,
    )
    op.create_index("inbox_event", "inbox", ["consumer", "source", "event_id"], unique=True)
    unfinished = "state IN (0, 1)"
    _partial_index("inbox_open", "inbox", ["consumer", "id"], where=unfinished)
    _partial_index("inbox_subject", "inbox", ["consumer", "subject", "id"], where=unfinished)
    _partial_index("inbox_lane", "inbox", ["consumer", "subject"], where="state = 1 AND ordered", unique=True)
    _partial_index("inbox_dead", "inbox", ["id"], where="state = 3")
    _partial_index("inbox_done", "inbox", ["done_ms"], where="state = 2")


def _inbox_wake() -> None:
    op.create_table(
        "inbox_wake",
        sa.Column("inbox_id", ROW_ID, sa.ForeignKey("inbox.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("wake_key", sa.String(512), primary_key=True),
    )
    op.create_index("inbox_wake_key", "inbox_wake", ["wake_key"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("subject", sa.String(1024), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(256), nullable=False),
        sa.Column("source", sa.String(512), nullable=False),
        sa.Column("type", sa.String(128), nullable=False),
        sa.Column("mandatory", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("traceparent", sa.String(64)),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("sent_ms", sa.BigInteger),
        sa.Column("refused", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_order", "outbox", ["subject", "sequence"], unique=True)
    _partial_index(
        "outbox_unsent", "outbox", ["subject", "sequence"], where="sent_ms IS NULL AND refused IS NULL"
    )


def _outbox_subject() -> None:
    op.create_table(
        "outbox_subject",
        sa.Column("subject", sa.String(1024), primary_key=True),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("sent_sequence", sa.BigInteger, nullable=False),
        sa.Column("relay", sa.String(128)),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
    _partial_index(
        "outbox_pending", "outbox_subject", ["lease_until_ms"], where="last_sequence > sent_sequence"
    )


def _tick() -> None:
    op.create_table(
        "tick",
        sa.Column("task", sa.String(128), primary_key=True),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.String(128)),
    )


def _upload() -> None:
    op.create_table(
        "upload",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("store", sa.String(512), nullable=False),
        sa.Column("key", sa.String(1024), nullable=False),
        sa.Column("upload_id", sa.String(1024)),
        sa.Column("inbox_id", sa.BigInteger),
        sa.Column("token", sa.BigInteger),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("parts", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("upload_key", "upload", ["store", "key"])


def _clipper_source() -> None:
    op.create_table(
        "clipper_source",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("camera_id", sa.String(128), nullable=False),
        sa.Column("key", sa.String(1024), nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("announced_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("clipper_source_key", "clipper_source", ["camera_id", "key"], unique=True)
    op.create_index("clipper_source_time", "clipper_source", ["camera_id", "start_ms", "end_ms"])


def _clipper_clip() -> None:
    op.create_table(
        "clipper_clip",
        sa.Column("clip_id", sa.String(128), primary_key=True),
        sa.Column("camera_id", sa.String(128), nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("requested_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("progress_ms", sa.BigInteger, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("result_type", sa.String(64)),
    )
    op.create_index("clipper_clip_listing", "clipper_clip", ["requested_ms", "clip_id"])
    op.create_index("clipper_clip_camera", "clipper_clip", ["camera_id", "requested_ms", "clip_id"])

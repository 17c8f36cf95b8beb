"""Subjects of which nothing is told any more are found by an index; the hot tables are vacuumed early."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# Rows of these live for moments: with a fifth of a table dead, as PostgreSQL waits for, claims read mostly
# dead entries of the partial indexes.
HOT_TABLES = ("inbox", "outbox", "outbox_subject")


def upgrade() -> None:
    """Add the index, and on PostgreSQL the settings; what runs already knows neither and needs neither."""
    quiet = sa.text("last_sequence <= sent_sequence")
    op.create_index(
        "outbox_quiet", "outbox_subject", ["lease_until_ms"], sqlite_where=quiet, postgresql_where=quiet
    )
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in HOT_TABLES:
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01,"
            " autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.05)"
        )

"""What vendors write beside a traceparent is kept and passed on with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; rows of before have none."""
    for table in ("inbox", "outbox"):
        op.add_column(table, sa.Column("tracestate", sa.String(512)))

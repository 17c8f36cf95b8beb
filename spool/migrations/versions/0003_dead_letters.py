"""Dead letters say which handler could not do it; those of the outbox are found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, empty in the rows that are there, and the index."""
    op.add_column("inbox", sa.Column("handler", sa.String(128)))
    refused = sa.text("refused IS NOT NULL")
    op.create_index("outbox_refused", "outbox", ["id"], sqlite_where=refused, postgresql_where=refused)

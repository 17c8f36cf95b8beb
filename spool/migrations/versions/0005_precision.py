"""A clip knows with which precision it was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; what runs already leaves it empty, which means: as the clipper is set."""
    op.add_column("clipper_clip", sa.Column("precision", sa.String(16)))

"""The journal of uploads knows each part, and which uploads are kept when their writer dies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

RowId = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns and the table; what is under way already is aborted as before."""
    op.add_column("upload", sa.Column("is_capture", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("upload", sa.Column("recovering_ms", sa.BigInteger))
    op.add_column("upload", sa.Column("recovered_ms", sa.BigInteger))
    op.create_table(
        "upload_part",
        sa.Column("upload_row", RowId, sa.ForeignKey("upload.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("etag", sa.String(128), nullable=False),
        sa.Column("crc32", sa.BigInteger),
    )

"""INSERT … ON CONFLICT, which SQLite and PostgreSQL write alike and SQLAlchemy offers per dialect."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from shared.database.engine import Connection


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return insert_by(connection.dialect.name, table)


def insert_by(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return the same for a dialect by its name: for statements that are built once."""
    if dialect == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)

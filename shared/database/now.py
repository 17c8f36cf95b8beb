"""The database's clock as an expression: leases, waits and sequences go by it, the same for all workers."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, Function, literal_column

NOW_FUNCTION = "spool_now_ms"  # our clock, as SQLite knows it


def now_by(dialect: str) -> ColumnElement[int]:
    """Return milliseconds since 1970, for a statement that is executed at once."""
    if dialect == "postgresql":
        # clock_timestamp, not now(): a transaction that waited for a lock must not see the past.
        # Without a bound value: SQLAlchemy miscounts those of expressions in an INSERT of many rows.
        return literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)", BigInteger)
    # A function, not a bound value: the statement's text stays the same, and is prepared once.
    return Function(NOW_FUNCTION, type_=BigInteger)

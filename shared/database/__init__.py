"""SQLAlchemy on SQLite and PostgreSQL: the unit of work, and the tables of inbox, outbox and uploads."""

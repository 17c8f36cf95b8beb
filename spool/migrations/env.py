"""What alembic runs for every command. The connection comes from `spool.migrations.migrate`."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Run the revisions within the transaction that the caller has begun."""
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()


run()

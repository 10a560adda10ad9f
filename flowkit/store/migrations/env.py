"""Run by alembic: all steps in one transaction, one process at a time."""

from __future__ import annotations

from alembic import context

from flowkit.store.database import SCHEMA_LOCK
from flowkit.store.tables import metadata

connection = context.config.attributes["connection"]
# SQLite alone cannot change a column in place: alembic copies the table ("batch").
context.configure(
    connection=connection, target_metadata=metadata, render_as_batch=True, transaction_per_migration=False
)
if connection.dialect.name == "postgresql":
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
else:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself would begin none for DDL
with context.begin_transaction():
    context.run_migrations()
connection.commit()

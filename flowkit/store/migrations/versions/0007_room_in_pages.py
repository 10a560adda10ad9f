"""Room in the pages of rows that change again and again: PostgreSQL updates those without a touch to their indexes."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """For pages that are filled from now on."""
    if op.get_bind().dialect.name == "postgresql":
        for table in ("runs", "scopes"):
            op.execute(f"ALTER TABLE {table} SET (fillfactor = 70)")

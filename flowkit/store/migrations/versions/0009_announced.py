"""Ends of runs that nobody has announced yet, and why commands were refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Runs that have ended before count as announced."""
    op.add_column("runs", sa.Column("unannounced_since", sa.Float(53)))
    where = sa.text("unannounced_since IS NOT NULL")
    op.create_index("runs_unannounced", "runs", ["unannounced_since", "id"], sqlite_where=where, postgresql_where=where)
    op.add_column("commands", sa.Column("refused", sa.LargeBinary()))

"""Loops that go on for years: folded paths, steps in a row, tasks that were removed; deadlines of paused runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Columns that are empty in what is there, and the index of deadlines made anew."""
    op.add_column("runs", sa.Column("trimmed", sa.Integer()))
    op.add_column("runs", sa.Column("trimmed_before", sa.Float(53)))
    op.add_column("tasks", sa.Column("depth", sa.Float(53)))
    op.add_column("tasks", sa.Column("unfolded", TEXT))
    op.drop_index("runs_deadline", "runs")
    where = sa.text("ended_at IS NULL AND deadline IS NOT NULL")
    op.create_index("runs_deadline", "runs", ["deadline"], sqlite_where=where, postgresql_where=where)

"""When a schedule is due and what it skipped; which runs are being removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TIME = sa.Float(53)


def upgrade() -> None:
    """Add them."""
    op.add_column("runs", sa.Column("pruned_at", TIME))
    _partial("runs_ended", "runs", ["ended_at", "id"], where="ended_at IS NOT NULL")
    op.add_column("schedules", sa.Column("look_at", TIME))
    op.add_column("schedules", sa.Column("skipped_at", TIME))
    op.add_column("schedules", sa.Column("skipped", sa.LargeBinary()))
    _partial("schedules_due", "schedules", ["look_at", "name"], where="look_at IS NOT NULL")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))

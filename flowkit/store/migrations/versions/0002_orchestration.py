"""Limits, leases, schedules, and where a run came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"

OUTSTANDING = "status IN ('held', 'queued', 'running', 'waiting')"
BYTES = sa.LargeBinary()
TIME = sa.Float(53)
TEXT: TypeEngine[str] = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add them."""
    op.add_column("runs", sa.Column("origin", TEXT))
    _partial("runs_parent", "runs", ["parent", "started_at", "id"], where="parent IS NOT NULL")
    op.add_column("runs", sa.Column("grace_until", TIME))
    op.add_column("tasks", sa.Column("slot", BYTES))
    op.add_column("tasks", sa.Column("leased_until", TIME))
    _partial("tasks_slot", "tasks", ["slot", "status"], where=f"slot IS NOT NULL AND {OUTSTANDING}")
    _partial("tasks_leased", "tasks", ["leased_until"], where="status = 'running' AND leased_until IS NOT NULL")
    op.create_table(
        "limits",
        sa.Column("slot", BYTES, nullable=False),
        sa.Column("next_at", TIME),
        sa.Column("due", TIME),
        sa.PrimaryKeyConstraint("slot"),
    )
    _partial("limits_due", "limits", ["due"], where="due IS NOT NULL")
    op.create_table(
        "schedules",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("cron", TEXT, nullable=False),
        sa.Column("timezone", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("inputs", BYTES, nullable=False),
        sa.Column("tags", BYTES, nullable=False),
        sa.Column("missed", TEXT, nullable=False),
        sa.Column("overlap", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("next_at", TIME),
        sa.Column("last_run", TEXT),
        sa.PrimaryKeyConstraint("name"),
    )


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))

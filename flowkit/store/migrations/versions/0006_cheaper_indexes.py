"""The indexes of what is outstanding, with a condition that SQLite can tell of a row without making a table first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

OUTSTANDING = "(status = 'held' OR status = 'queued' OR status = 'running' OR status = 'waiting')"


def upgrade() -> None:
    """Make them anew."""
    op.drop_index("tasks_outstanding", "tasks")
    _partial("tasks_outstanding", ["run_id", "scope"], where=OUTSTANDING)
    op.drop_index("tasks_slot", "tasks")
    _partial("tasks_slot", ["slot", "held_for", "created_at"], where=f"slot IS NOT NULL AND {OUTSTANDING}")


def _partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "tasks", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))

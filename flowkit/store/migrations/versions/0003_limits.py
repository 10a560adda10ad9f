"""Limits of nodes: as they announced them, and the tasks of a slot in the order in which they go out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

LIMITED = "slot IS NOT NULL AND status IN ('held', 'queued', 'running', 'waiting')"


def upgrade() -> None:
    """Add them."""
    op.add_column("nodes", sa.Column("limits", sa.LargeBinary()))
    _partial("nodes_limits", "nodes", ["name"], where="limits IS NOT NULL")
    op.drop_index("tasks_slot", "tasks")
    _partial("tasks_slot", "tasks", ["slot", "held_for", "created_at"], where=LIMITED)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))

"""Pages come out of an index: of runs by status or node, of timers and of what is to be sent, whatever their number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add two, and make two anew with the rest of their order."""
    op.create_index("runs_by_status", "runs", [sa.text("(status || '')"), "started_at", "id"])
    op.create_index("runs_by_node", "runs", ["node", "started_at", "id"])
    op.drop_index("tasks_unsent", "tasks")
    _partial("tasks_unsent", ["unsent_since", "run_id", "id"], where="unsent_since IS NOT NULL")
    op.drop_index("tasks_due", "tasks")
    _partial("tasks_due", ["due", "run_id", "id"], where="status = 'held' AND due IS NOT NULL")


def _partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "tasks", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))

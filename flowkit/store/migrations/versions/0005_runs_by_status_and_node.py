"""Pages of runs that have a status, or began at a node, however many others there are."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add them."""
    op.create_index("runs_by_status", "runs", ["status", "started_at", "id"])
    op.create_index("runs_by_node", "runs", ["node", "started_at", "id"])

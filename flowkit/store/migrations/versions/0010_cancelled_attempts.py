"""Attempts of limited nodes that were cancelled and have not ended: they count in their slots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """What was cancelled before counts no more."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "cancelled_attempts",
        sa.Column("run_id", text, nullable=False),
        sa.Column("id", sa.LargeBinary(16).with_variant(sa.UUID(), "postgresql"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("slot", sa.LargeBinary(), nullable=False),
        sa.Column("heard_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "id", "attempt"),
    )
    op.create_index("cancelled_attempts_slot", "cancelled_attempts", ["slot"])
    op.create_index("cancelled_attempts_heard", "cancelled_attempts", ["heard_at"])

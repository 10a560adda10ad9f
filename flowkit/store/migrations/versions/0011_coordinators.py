"""How far each coordinator has committed what was delivered to it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Coordinators write their rows themselves."""
    op.create_table(
        "coordinators",
        sa.Column("id", sa.LargeBinary(16).with_variant(sa.UUID(), "postgresql"), nullable=False),
        sa.Column("name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("attached", sa.BigInteger(), nullable=False),
        sa.Column("committed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )

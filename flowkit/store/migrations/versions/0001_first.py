"""The first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None

OUTSTANDING = "status IN ('held', 'queued', 'running', 'waiting')"
BYTES = sa.LargeBinary()
TIME = sa.Float(53)
TEXT: TypeEngine[str] = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID: TypeEngine[Any] = sa.LargeBinary(16).with_variant(sa.UUID(), "postgresql")
NUMBER: TypeEngine[int] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "meta",
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "runs",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("tags", BYTES, nullable=False),
        sa.Column("parent", TEXT),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("deadline", TIME),
        sa.Column("traceparent", BYTES),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("root", ID),
        sa.Column("ended_at", TIME),
        sa.Column("outputs", BYTES),
        sa.Column("outputs_from", ID),
        sa.Column("message", BYTES, nullable=False),
        sa.Column("error", BYTES),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("runs_newest", "runs", ["started_at", "id"])
    _partial("runs_deadline", "runs", ["deadline"], where="status = 'running' AND deadline IS NOT NULL")
    op.create_table(
        "scopes",
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("parent", TEXT),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("outstanding", sa.Integer(), nullable=False),
        sa.Column("branches", sa.Integer(), nullable=False),
        sa.Column("opener", ID),
        sa.Column("continuation", BYTES),
        sa.Column("return_exceptions", sa.Boolean(), nullable=False),
        sa.Column("max_concurrency", sa.Integer()),
        sa.Column("due", TIME),
        sa.PrimaryKeyConstraint("run_id", "path"),
    )
    _partial("scopes_due", "scopes", ["due"], where="status = 'open' AND due IS NOT NULL")
    _partial("scopes_open", "scopes", ["run_id", "path"], where="status = 'open'")
    op.create_table(
        "tasks",
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("held_for", TEXT),
        sa.Column("due", TIME),
        sa.Column("inputs", BYTES),
        sa.Column("inputs_from", ID),
        sa.Column("outputs", BYTES),
        sa.Column("nodes", BYTES),
        sa.Column("leaf_of", TEXT),
        sa.Column("wait", BYTES),
        sa.Column("signal", BYTES),
        sa.Column("handler", sa.Boolean(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("message", BYTES),
        sa.Column("error", BYTES),
        sa.Column("worker", BYTES),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("unsent_since", TIME),
        sa.Column("sent_at", TIME),
        sa.Column("first_started_at", TIME),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.PrimaryKeyConstraint("run_id", "id"),
    )
    _partial("tasks_due", "tasks", ["due"], where="status = 'held' AND due IS NOT NULL")
    _partial("tasks_leaves", "tasks", ["run_id", "leaf_of"], where="leaf_of IS NOT NULL")
    _partial("tasks_outstanding", "tasks", ["run_id", "scope"], where=OUTSTANDING)
    _partial("tasks_unsent", "tasks", ["unsent_since"], where="unsent_since IS NOT NULL")
    _partial("tasks_waits", "tasks", ["run_id", "signal"], where="status = 'waiting'")
    _partial("tasks_waits_due", "tasks", ["due"], where="status = 'waiting' AND due IS NOT NULL")
    op.create_table(
        "signals",
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("name", BYTES, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("input", BYTES, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("signals_name", "signals", ["run_id", "name"])
    op.create_table(
        "commands",
        sa.Column("id", ID, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("commands_run", "commands", ["run_id"])
    op.create_table(
        "superseded",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("attempt", sa.Integer()),
        sa.Column("status", BYTES, nullable=False),
        sa.Column("reason", BYTES, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("superseded_run", "superseded", ["run_id"])
    op.create_table(
        "dead",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("reason", BYTES, nullable=False),
        sa.Column("detail", BYTES, nullable=False),
        sa.Column("queue", BYTES, nullable=False),
        sa.Column("body", BYTES, nullable=False),
        sa.Column("properties", BYTES, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("run_id", BYTES),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "workers",
        sa.Column("name", BYTES, nullable=False),
        sa.Column("version", BYTES, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("stopping", sa.Boolean(), nullable=False),
        sa.Column("announcement", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "nodes",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("on_error", TEXT),
        sa.Column("info", BYTES, nullable=False),
        sa.Column("announced_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "logs",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("ts", TIME, nullable=False),
        sa.Column("run_id", TEXT),
        sa.Column("node", TEXT),
        sa.Column("worker", BYTES),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("line", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("logs_once", "logs", ["worker", "seq"], unique=True)
    _partial("logs_run", "logs", ["run_id", "ts"], where="run_id IS NOT NULL")
    op.create_index("logs_time", "logs", ["ts"])
    op.create_table(
        "archive",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("owner", TEXT),
        sa.Column("until", TIME, nullable=False),
        sa.Column("position", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
    )


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))

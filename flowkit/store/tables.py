"""The tables, once for both databases.

No text that others wrote stands in a text column: PostgreSQL refuses NUL there. It is kept as UTF-8 bytes, as payloads
are. Every index costs on the path of each result, so each says which question it answers.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    UUID,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

from flowkit.store.rows import BY_STATUS, OUTSTANDING

metadata = MetaData()

_BYTES = LargeBinary()
_TIME = Float(53)  # Unix seconds
_TEXT: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")  # ordered by bytes, as in SQLite
_ID: TypeEngine[Any] = LargeBinary(16).with_variant(UUID(), "postgresql")
_NUMBER: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")  # what SQLite needs to count by itself
# For counters that change with each step: a new version of the row in the same page leaves all indexes as they are.
_ROOM = {"fillfactor": 70}


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


meta = Table(
    "meta",
    metadata,
    Column("key", _TEXT, primary_key=True),
    Column("value", _TEXT, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", _TEXT, primary_key=True),
    Column("node", _TEXT, nullable=False),
    Column("status", _TEXT, nullable=False),
    Column("tags", _BYTES, nullable=False),
    Column("parent", _TEXT),
    Column("started_at", _TIME, nullable=False),
    Column("deadline", _TIME),
    Column("traceparent", _BYTES),
    Column("tasks", Integer, nullable=False),
    Column("root", _ID),  # the first task
    Column("ended_at", _TIME),
    Column("outputs", _BYTES),
    Column("outputs_from", _ID),
    Column("message", _BYTES, nullable=False),
    Column("error", _BYTES),
    Column("origin", _TEXT),
    Column("grace_until", _TIME),
    Column("pruned_at", _TIME),  # it is being removed, and some of its rows are gone already
    Column("trimmed", Integer),  # tasks of a loop that were removed while it went on
    Column("trimmed_before", _TIME),  # when the newest of those was created, or a little later
    Column("unannounced_since", _TIME),  # set from its end until the broker has confirmed the message about that
    Index("runs_newest", "started_at", "id"),  # pages of `runs list`
    # The same with --status. Of an expression, so that it offers itself for nothing else: from each task that is due a
    # planner would go through all runs under way.
    Index("runs_by_status", text(BY_STATUS), "started_at", "id"),
    Index("runs_by_node", "node", "started_at", "id"),  # the same with --node
    _partial("runs_ended", "ended_at", "id", where="ended_at IS NOT NULL"),  # prune
    _partial("runs_parent", "parent", "started_at", "id", where="parent IS NOT NULL"),  # children of a run
    _partial("runs_deadline", "deadline", where="ended_at IS NULL AND deadline IS NOT NULL"),  # timers
    _partial("runs_unannounced", "unannounced_since", "id", where="unannounced_since IS NOT NULL"),  # relay
    postgresql_with=_ROOM,
)

scopes = Table(
    "scopes",
    metadata,
    Column("run_id", _TEXT, nullable=False),
    Column("path", _TEXT, nullable=False),
    Column("parent", _TEXT),
    Column("status", _TEXT, nullable=False),
    Column("outstanding", Integer, nullable=False),
    Column("branches", Integer, nullable=False),
    Column("opener", _ID),
    Column("continuation", _BYTES),
    Column("return_exceptions", Boolean, nullable=False),
    Column("max_concurrency", Integer),
    Column("due", _TIME),
    PrimaryKeyConstraint("run_id", "path"),
    _partial("scopes_open", "run_id", "path", where="status = 'open'"),  # recount
    _partial("scopes_due", "due", where="status = 'open' AND due IS NOT NULL"),  # timers
    postgresql_with=_ROOM,
)

tasks = Table(
    "tasks",
    metadata,
    Column("run_id", _TEXT, nullable=False),
    Column("id", _ID, nullable=False),
    Column("path", _TEXT, nullable=False),
    Column("scope", _TEXT, nullable=False),
    Column("node", _TEXT, nullable=False),
    Column("status", _TEXT, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("held_for", _TEXT),
    Column("due", _TIME),
    Column("inputs", _BYTES),
    Column("inputs_from", _ID),
    Column("outputs", _BYTES),
    Column("nodes", _BYTES),
    Column("leaf_of", _TEXT),
    Column("wait", _BYTES),
    Column("signal", _BYTES),
    Column("handler", Boolean, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("message", _BYTES),
    Column("error", _BYTES),
    Column("worker", _BYTES),
    Column("created_at", _TIME, nullable=False),
    Column("unsent_since", _TIME),  # set exactly while it is queued and its message was not confirmed
    Column("sent_at", _TIME),
    Column("first_started_at", _TIME),
    Column("started_at", _TIME),
    Column("finished_at", _TIME),
    Column("slot", _BYTES),  # the limit that it counts in
    Column("leased_until", _TIME),
    Column("depth", _TIME),  # steps in a row
    Column("unfolded", _TEXT),  # the path before it was folded
    PrimaryKeyConstraint("run_id", "id"),
    _partial("tasks_outstanding", "run_id", "scope", where=OUTSTANDING),  # recount, cancel, sweeper, nodes
    _partial("tasks_unsent", "unsent_since", "run_id", "id", where="unsent_since IS NOT NULL"),  # relay, page by page
    _partial("tasks_due", "due", "run_id", "id", where="status = 'held' AND due IS NOT NULL"),  # timers, page by page
    _partial("tasks_waits", "run_id", "signal", where="status = 'waiting'"),  # signals
    _partial("tasks_waits_due", "due", where="status = 'waiting' AND due IS NOT NULL"),  # timers
    _partial("tasks_leaves", "run_id", "leaf_of", where="leaf_of IS NOT NULL"),  # collect
    _partial("tasks_slot", "slot", "held_for", "created_at", where=f"slot IS NOT NULL AND {OUTSTANDING}"),  # limits
    _partial("tasks_leased", "leased_until", where="status = 'running' AND leased_until IS NOT NULL"),  # leases
)

limits = Table(  # slots whose node has a rate: one a node, or one for each value of its key
    "limits",
    metadata,
    Column("slot", _BYTES, primary_key=True),
    Column("next_at", _TIME),  # when its rate allows the next task
    Column("due", _TIME),  # when to look at it again: something may go out, or it may be forgotten
    _partial("limits_due", "due", where="due IS NOT NULL"),  # timers
)

cancelled_attempts = Table(  # of limited nodes, which count in their slots until they have ended
    "cancelled_attempts",
    metadata,
    Column("run_id", _TEXT, nullable=False),
    Column("id", _ID, nullable=False),  # of the task
    Column("attempt", Integer, nullable=False),
    Column("slot", _BYTES, nullable=False),
    Column("heard_at", _TIME, nullable=False),  # when it was cancelled, or a worker announced it last
    PrimaryKeyConstraint("run_id", "id", "attempt"),
    Index("cancelled_attempts_slot", "slot"),  # limits
    Index("cancelled_attempts_heard", "heard_at"),  # leases
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", _TEXT, primary_key=True),
    Column("cron", _TEXT, nullable=False),
    Column("timezone", _TEXT, nullable=False),
    Column("node", _TEXT, nullable=False),
    Column("inputs", _BYTES, nullable=False),
    Column("tags", _BYTES, nullable=False),
    Column("missed", _TEXT, nullable=False),  # skip or once
    Column("overlap", Boolean, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("next_at", _TIME),  # None: it never comes again
    Column("last_run", _TEXT),
    Column("look_at", _TIME),  # when a coordinator sees to it: at next_at, or later when that failed
    Column("skipped_at", _TIME),  # the last tick that began no run
    Column("skipped", _BYTES),  # why
    _partial("schedules_due", "look_at", "name", where="look_at IS NOT NULL"),
)

signals = Table(  # that came before anybody waited for them
    "signals",
    metadata,
    Column("seq", _NUMBER, primary_key=True),  # the order in which they came
    Column("run_id", _TEXT, nullable=False),
    Column("name", _BYTES, nullable=False),
    Column("id", _ID, nullable=False),
    Column("input", _BYTES, nullable=False),
    Column("at", _TIME, nullable=False),
    Index("signals_name", "run_id", "name"),
)

commands = Table(  # that were decided
    "commands",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("run_id", _TEXT, nullable=False),
    Column("kind", _TEXT, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("refused", _BYTES),  # why; None: it was applied
    Index("commands_run", "run_id"),
)

superseded = Table(
    "superseded",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("run_id", _TEXT, nullable=False),
    Column("task_id", _ID, nullable=False),
    Column("attempt", Integer),
    Column("status", _BYTES, nullable=False),
    Column("reason", _BYTES, nullable=False),
    Column("at", _TIME, nullable=False),
    Index("superseded_run", "run_id"),
)

dead = Table(
    "dead",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("reason", _BYTES, nullable=False),
    Column("detail", _BYTES, nullable=False),
    Column("queue", _BYTES, nullable=False),
    Column("body", _BYTES, nullable=False),
    Column("properties", _BYTES, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("run_id", _BYTES),
    sqlite_autoincrement=True,  # a number that somebody has seen is never given to another letter
)

workers = Table(
    "workers",
    metadata,
    Column("name", _BYTES, primary_key=True),
    Column("version", _BYTES, nullable=False),
    Column("seen_at", _TIME, nullable=False),
    Column("stopping", Boolean, nullable=False),
    Column("announcement", _BYTES, nullable=False),
)

coordinators = Table(  # one row for each process: how far it has committed what was delivered to it
    "coordinators",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", _TEXT, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("attached", BigInteger, nullable=False),
    Column("committed", BigInteger, nullable=False),
)

nodes = Table(  # as a worker announced them last
    "nodes",
    metadata,
    Column("name", _TEXT, primary_key=True),
    Column("on_error", _TEXT),
    Column("info", _BYTES, nullable=False),  # JSON of wire NodeInfo
    Column("announced_at", _TIME, nullable=False),
    Column("limits", _BYTES),  # JSON of flow NodeLimit, where it has any
    _partial("nodes_limits", "name", where="limits IS NOT NULL"),  # each transaction of the commit protocol
)

logs = Table(
    "logs",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("ts", _TIME, nullable=False),
    Column("run_id", _TEXT),
    Column("node", _TEXT),
    Column("worker", _BYTES),
    Column("seq", BigInteger),
    Column("line", _BYTES, nullable=False),  # JSON of wire Log
    Index("logs_once", "worker", "seq", unique=True),
    Index("logs_time", "ts"),
    _partial("logs_run", "run_id", "ts", where="run_id IS NOT NULL"),
)

archive = Table(  # one row: who archives the log stream, and how far that is
    "archive",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("owner", _TEXT),
    Column("until", _TIME, nullable=False),
    Column("position", BigInteger),
)

"""Leases of long tasks in the tables: looked up by what workers announce, granted, and found when they are over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowkit.flow.events import LeaseExpired
from flowkit.flow.leases import Known, Lease
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.store import rows
from flowkit.store.database import Database, Row
from flowkit.store.protocol import TaskKey
from flowkit.store.resending import AHEAD

KNOWN = (
    "SELECT t.run_id, t.id, t.status, t.attempt, t.created_at, run.status, t.sent_at, t.first_started_at, "
    "t.leased_until, run.grace_until FROM tasks AS t JOIN runs AS run ON run.id = t.run_id"
)
LEASED = (*rows.TASK_KEY, "attempt"), (
    "status", "worker", "sent_at", "started_at", "first_started_at", "unsent_since", "leased_until",
)  # fmt: skip
EXPIRED = (
    "SELECT l.run_id, l.id FROM tasks AS l JOIN runs AS t ON t.id = l.run_id "
    "WHERE l.status = 'running' AND l.leased_until <= :now AND t.status IN ('running', 'paused') "
    "ORDER BY l.leased_until, l.run_id, l.id LIMIT :limit"
)


def known(database: Database, tasks: Iterable[TaskKey]) -> dict[TaskKey, Known]:
    """What is known of those of the tasks that are there."""
    wanted: list[Row] = [(run_id, database.id_in(task_id)) for run_id, task_id in dict.fromkeys(tasks)]
    if not wanted:
        return {}
    return {
        (run_id, database.id_out(task_id)): Known(
            status=TaskStatus(status), attempt=attempt, created_at=created_at, run=RunStatus(run), sent_at=sent_at,
            first_started_at=first_started_at, leased_until=leased_until, grace_until=grace_until,
        )
        for run_id, task_id, status, attempt, created_at, run, sent_at, first_started_at, leased_until, grace_until
        in database.lookup(KNOWN, "tasks", rows.TASK_KEY, wanted)
    }  # fmt: skip


def lease(database: Database, leases: Sequence[Lease]) -> list[Lease]:
    """Grant or renew leases; returns those that hold.

    Rows that another coordinator has locked are left out, as marks of sent tasks are: it may be applying their result.
    """
    if not leases:
        return []
    written: list[Row] = [
        (one.run_id, database.id_in(one.task_id), one.attempt, "running", rows.utf8(one.worker), one.sent_at,
         one.started_at, one.first_started_at, None, one.until)
        for one in leases
    ]  # fmt: skip
    keys, columns = LEASED
    database.update("tasks", keys, columns, written, only=rows.IS_SENT, wait=False)
    now_known = known(database, [(one.run_id, one.task_id) for one in leases])
    held = ((one, now_known.get((one.run_id, one.task_id))) for one in leases)
    return [one for one, row in held if row and (row.attempt, row.leased_until) == (one.attempt, one.until)]


def expired(database: Database, now: float, limit: int) -> list[LeaseExpired]:
    """Leases of runs under way that are over. The runs are locked: what another coordinator works on comes later."""
    found = database.select(f"{EXPIRED} {database.skip_locked}", {"now": now, "limit": limit})
    return [LeaseExpired(run_id, database.id_out(task_id)) for run_id, task_id in found]


def shorten(database: Database, until: float) -> list[str]:
    """Let leases that last over a minute longer than ``until`` end then; returns their runs."""
    found = database.select(
        "SELECT run_id, id, attempt FROM tasks WHERE status = 'running' AND leased_until > :ahead ORDER BY run_id, id",
        {"ahead": until + AHEAD},
    )
    if found:
        database.update("tasks", (*rows.TASK_KEY, "attempt"), ("leased_until",), [(*row, until) for row in found],
                        only="t.leased_until IS NOT NULL", wait=False)  # fmt: skip
    return [row[0] for row in found]

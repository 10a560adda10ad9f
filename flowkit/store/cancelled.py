"""Cancelled attempts of limited nodes, which count in their slots until they have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowkit.flow.changes import FreeSlot
from flowkit.store import resending, rows
from flowkit.store.database import Database, Row, Values
from flowkit.store.protocol import AttemptKey, CancelledAttempt

TABLE, KEY = "cancelled_attempts", ("run_id", "id", "attempt")
SENT = f"{rows.OUTSTANDING} AND status IN ('queued', 'running')"
LIMITED = f"t.slot IS NOT NULL AND {rows.T_OUTSTANDING}"


def hold_slots(database: Database, where: str, values: Values, *, every: bool) -> list[AttemptKey]:
    """Let the attempts that are about to be cancelled count in their slots, and return those that workers may have.

    Args:
        database: in a transaction that has the run locked.
        where: which tasks of the run ``:run_id`` are to be cancelled.
        values: of that condition; with ``at``, the time of the cancellation.
        every: return those of nodes without limits too.
    """
    if database.skip_locked:
        # Others let tasks out of their slots without a lock on the run: from here on they are held, or out.
        run: list[Row] = [(values["run_id"],)]
        database.lookup("SELECT t.id FROM tasks AS t", "tasks", ("run_id",), run, only=LIMITED, lock=True)
    database.execute(
        f"INSERT INTO {TABLE} (run_id, id, attempt, slot, heard_at) SELECT run_id, id, attempt, slot, :at FROM tasks "
        f"WHERE {where} AND {SENT} AND slot IS NOT NULL ON CONFLICT DO NOTHING",
        values,
    )
    some = "" if every else " AND slot IS NOT NULL"
    found = database.select(
        f"SELECT run_id, id, attempt FROM tasks WHERE {where} AND {SENT}{some} ORDER BY created_at, id", values
    )
    return [(run_id, database.id_out(task_id), attempt) for run_id, task_id, attempt in found]


def free_slots(database: Database, ended: Iterable[FreeSlot]) -> None:
    """These attempts have ended."""
    exact: list[Row] = []
    tasks: list[Row] = []
    for one in ended:
        key = (one.run_id, database.id_in(one.task_id))
        if one.attempt is None:
            tasks.append(key)
        else:
            exact.append((*key, one.attempt))
    if exact:
        database.delete(TABLE, KEY, exact)
    if tasks:
        database.delete(TABLE, KEY[:2], tasks)


def count(database: Database, slots: Iterable[bytes]) -> dict[bytes, int]:
    """How many of them count in each of these slots."""
    keys: list[Row] = [(key,) for key in slots]
    found = database.lookup(rows.CANCELLED_IN_SLOT, TABLE, ("slot",), keys, group="t.slot")
    return {bytes(key): number for key, number in found}


def note_heard(database: Database, attempts: Iterable[AttemptKey], now: float, before: float) -> None:
    """Workers announce these attempts: note it where that was noted last before ``before``, or by another clock."""
    keys: list[Row] = [(run_id, database.id_in(task_id), attempt) for run_id, task_id, attempt in attempts]
    if not keys:
        return
    found = database.lookup(f"SELECT t.run_id, t.id, t.attempt, t.heard_at FROM {TABLE} AS t", TABLE, KEY, keys)
    heard: list[Row] = [(*key, now) for *key, at in found if not before <= at <= now]
    if heard:
        database.update(TABLE, KEY, ("heard_at",), sorted(heard), wait=False)


def unheard(
    database: Database, before: float, limit: int, after: CancelledAttempt | None = None
) -> list[CancelledAttempt]:
    """Those that were not heard of since ``before``, or are dated later than now: a clock was set back."""
    values: dict[str, object] = {"before": before, "ahead": database.now() + resending.AHEAD, "limit": limit}
    behind = ""
    if after is not None:
        behind = "AND (t.heard_at, t.run_id, t.id, t.attempt) > (:heard_at, :run_id, :id, :attempt) "
        values |= {"heard_at": after.heard_at, "run_id": after.run_id, "id": database.id_in(after.task_id)}
        values["attempt"] = after.attempt
    found = database.select(
        # Of a task that was opened again its row tells no more what the message of this attempt says.
        f"SELECT t.run_id, t.id, t.attempt, t.slot, t.heard_at, task.tries FROM {TABLE} AS t "
        "LEFT JOIN tasks AS task ON task.run_id = t.run_id AND task.id = t.id AND task.attempt = t.attempt "
        f"WHERE (t.heard_at <= :before OR t.heard_at > :ahead) {behind}"
        "ORDER BY t.heard_at, t.run_id, t.id, t.attempt LIMIT :limit",
        values,
    )
    return [
        CancelledAttempt(run_id, database.id_out(task_id), attempt, bytes(slot).decode(), heard_at, tries)
        for run_id, task_id, attempt, slot, heard_at, tries in found
    ]


def give_up(database: Database, attempts: Sequence[CancelledAttempt]) -> None:
    """Nobody has these, unless they were heard of meanwhile."""
    gone: list[Row] = [(one.run_id, database.id_in(one.task_id), one.attempt, one.heard_at) for one in attempts]
    if gone:
        database.delete(TABLE, (*KEY, "heard_at"), gone)

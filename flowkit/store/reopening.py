"""Opens a failed run again: finds what its failure ended, and lets that go on."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.flow import paths
from flowkit.flow.state import DELAY, LIMIT, RETRY, WINDOW
from flowkit.store import rows
from flowkit.store.database import Database, Row

AGAIN = (
    *rows.TASK_KEY, "status", "attempt", "tries", "held_for", "due", "message", "error", "deaths", "worker", "sent_at",
    "unsent_since", "first_started_at", "started_at", "finished_at",
)  # fmt: skip


def reopen(database: Database, run_id: str, at: float) -> list[str]:
    """Let a failed run go on.

    What stays as it is: branches whose failure is their value, with all that was cancelled in them, and failed tasks
    whose node's ``on_error`` went on in their place.

    Args:
        database: in a transaction that has the run locked.
        run_id: of the run.
        at: times that have passed by now are forgotten; Unix seconds.

    Returns:
        paths of the scopes that were opened and have nothing outstanding: they are to be collected.
    """
    run = {"run_id": run_id}
    absorbed = _absorbed(database, run_id)
    _reopen_tasks(database, run_id, at, absorbed)
    ended = database.select(
        "SELECT path, due FROM scopes WHERE run_id = :run_id AND status IN ('failed', 'cancelled')", run
    )
    opened: list[Row] = [
        (run_id, path, "open", due if due is not None and due > at else None)
        for path, due in ended
        if not _within(path, absorbed)
    ]
    if opened:
        database.update("scopes", ("run_id", "path"), ("status", "due"), opened)
    database.execute("UPDATE runs SET deadline = NULL WHERE id = :run_id AND deadline <= :at", {**run, "at": at})
    counted = _recount(database, run_id)
    return [path for _, path, *_ in opened if counted[path] == 0]


def _absorbed(database: Database, run_id: str) -> frozenset[str]:
    """Paths of the branches that failed where exceptions are returned.

    Their leaf is the task that failed, or the one that opened the failed scope: that one counts as failed too.
    """
    leaves = database.select(
        "SELECT path, leaf_of FROM tasks WHERE run_id = :run_id AND leaf_of IS NOT NULL AND status = 'failed'",
        {"run_id": run_id},
    )
    return frozenset(paths.child(scope, paths.branch(scope, path)) for path, scope in leaves)


def _within(path: str, branches: frozenset[str]) -> bool:
    """Whether a path is one of ``branches``, or below one."""
    if not branches:
        return False
    while path and path not in branches:
        above, dot, last = path.rpartition(".")
        folded = paths.FOLDED in last  # it stands in the place of the first segment of what was folded
        path = f"{above}{dot}{last.partition(paths.FOLDED)[0]}" if folded else above
    return path != ""


def _reopen_tasks(database: Database, run_id: str, at: float, absorbed: frozenset[str]) -> None:
    run = {"run_id": run_id}
    handlers = {
        path for (path,) in database.select(
            "SELECT coalesce(unfolded, path) FROM tasks WHERE run_id = :run_id AND handler", run
        )
    }  # fmt: skip
    ended = database.select(
        "SELECT id, path, status, attempt, due, wait IS NOT NULL, held_for, slot IS NOT NULL, nodes IS NOT NULL "
        "FROM tasks "
        "WHERE run_id = :run_id AND leaf_of IS NULL AND status IN ('failed', 'cancelled')",
        run,
    )
    again: list[Row] = []
    for task_id, path, status, attempt, due, waits, held_for, limited, goes_on in ended:
        handled = status == "failed" and (goes_on or paths.child(path, 0) in handlers)
        if handled or _within(path, absorbed):
            continue
        if waits:
            due = due if due is not None and due > at else None  # noqa: PLW2901 - forgotten when it has passed
            fresh: Row = ("waiting", attempt, 1, None, due, None, None, 0, None, None, None)
        elif status == "cancelled" and held_for in (DELAY, RETRY) and due is not None:
            fresh = ("held", attempt + 1, 1, held_for, due, None, None, 0, None, None, None)  # until then as before
        elif held_for == LIMIT and not limited:
            # Nobody could tell in which slot it counts: whoever releases what is due looks at its inputs again.
            fresh = ("held", attempt + 1, 1, DELAY, at, None, None, 0, None, None, None)
        elif held_for == WINDOW or limited:
            why = WINDOW if held_for == WINDOW else LIMIT
            fresh = ("held", attempt + 1, 1, why, None, None, None, 0, None, None, None)
        else:
            fresh = ("queued", attempt + 1, 1, None, None, None, None, 0, None, None, rows.AT_ONCE)
        again.append((run_id, task_id, *fresh, None, None, None))
    if again:
        database.update("tasks", rows.TASK_KEY, AGAIN[len(rows.TASK_KEY) :], again)


def _recount(database: Database, run_id: str) -> dict[str, int]:
    """Count anew what is outstanding in each open scope of a run, and return that."""
    run = {"run_id": run_id}
    is_open = database.select("SELECT path FROM scopes WHERE run_id = :run_id AND status = 'open'", run)
    counts: dict[str, int] = {path: 0 for (path,) in is_open}
    tasks = f"SELECT scope, count(*) FROM tasks WHERE run_id = :run_id AND {rows.OUTSTANDING} GROUP BY scope"
    scopes = "SELECT parent, count(*) FROM scopes WHERE run_id = :run_id AND status = 'open' GROUP BY parent"
    _add(counts, database.select(tasks, run))
    _add(counts, database.select(scopes, run))
    if counts:
        counted: list[Row] = [(run_id, path, count) for path, count in counts.items()]
        database.update("scopes", ("run_id", "path"), ("outstanding",), counted)
    return counts


def _add(counts: dict[str, int], found: Iterable[Row]) -> None:
    for path, count in found:
        if path in counts:  # the root scope has no parent
            counts[path] += count

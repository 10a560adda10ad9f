"""Removes what is old, a bounded number of rows in one transaction.

A run may have a hundred thousand tasks, so it may take many steps. From the first of them on it is marked as being
removed: nobody sees it any more, and whoever names it again (``load``) removes the rest at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.store.database import Database, Row
from flowkit.store.protocol import OldLine, Pruned

RUNS = 100  # in one step
PARTS = {  # table with rows of runs -> its key
    "tasks": ("run_id", "id"),
    "scopes": ("run_id", "path"),
    "signals": ("seq",),
    "commands": ("id",),
    "superseded": ("id",),
    "logs": ("id",),
}


def prune(database: Database, before: float, limit: int) -> Pruned:
    """Remove ``limit`` rows at most of runs that ended before ``before``, oldest first, and the runs that are empty."""
    found = database.select(
        f"SELECT t.id FROM runs AS t WHERE t.ended_at < :before ORDER BY t.ended_at, t.id LIMIT :limit "
        f"{database.skip_locked}",
        {"before": before, "limit": RUNS},
    )
    if not found:
        return Pruned(runs=0, rows=0)
    left = limit
    for table in PARTS:
        left -= _remove_part(database, table, found, left)
        if left == 0:  # there may be more
            database.update("runs", ("id",), ("pruned_at",), [(run_id, database.now()) for (run_id,) in found])
            return Pruned(runs=0, rows=limit)
    database.delete("runs", ("id",), found)
    return Pruned(runs=len(found), rows=limit - left)


def finish(database: Database, runs: Sequence[str]) -> None:
    """Remove the rest of runs that were being removed; the caller has locked them."""
    gone: list[Row] = [(run_id,) for run_id in runs]
    for table in PARTS:
        database.delete(table, ("run_id",), gone)
    database.delete("runs", ("id",), gone)


def prune_lines(database: Database, before: float, limit: int, behind: OldLine | None) -> tuple[int, OldLine | None]:
    """Look at old log lines in the order of their times and remove those of no run, and of loops that were trimmed.

    Returns:
        how many were removed, and the line behind which to go on; None: that was the last.
    """
    values: dict[str, object] = {"before": before, "limit": limit}
    further = ""
    if behind is not None:
        # The first condition is for the index, which knows times only.
        further = "AND t.ts >= :ts AND (t.ts, t.id) > (:ts, :id) "
        values |= {"ts": behind.ts, "id": behind.id}
    looked_at = database.select(
        "SELECT t.ts, t.id, t.run_id IS NOT NULL AND EXISTS "
        "(SELECT 1 FROM runs WHERE runs.id = t.run_id AND runs.trimmed IS NULL) "
        f"FROM logs AS t WHERE t.ts < :before {further}ORDER BY t.ts, t.id LIMIT :limit {database.skip_locked}",
        values,
    )
    gone: list[Row] = [(line_id,) for _, line_id, kept in looked_at if not kept]
    if gone:
        database.delete("logs", ("id",), gone)
    return len(gone), OldLine(*looked_at[-1][:2]) if len(looked_at) == limit else None


def prune_workers(database: Database, before: float, limit: int) -> int:
    """Forget workers that were not heard of since ``before``; returns how many."""
    found = database.select(
        f"SELECT t.name FROM workers AS t WHERE t.seen_at < :before ORDER BY t.name LIMIT :limit "
        f"{database.skip_locked}",
        {"before": before, "limit": limit},
    )
    if found:
        database.delete("workers", ("name",), found)
    return len(found)


def _remove_part(database: Database, table: str, runs: Sequence[Row], limit: int) -> int:
    key = ", ".join(PARTS[table])
    values: dict[str, object] = {f"run{number}": run_id for number, (run_id,) in enumerate(runs)}
    some = f"SELECT {key} FROM {table} WHERE run_id IN ({', '.join(f':{name}' for name in values)}) LIMIT :limit"
    return database.execute(f"DELETE FROM {table} WHERE ({key}) IN ({some})", {**values, "limit": limit})

"""Ends of runs that the broker has not confirmed yet: the outbox of ``run`` messages is a column of their rows."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.store import rows
from flowkit.store.database import Database, Row
from flowkit.store.protocol import EndedRun, EndMark


def unannounced(database: Database, before: float, limit: int, *, ahead: float) -> list[EndedRun]:
    """Ended runs that are unannounced since before ``before``, or dated after ``ahead``; they count as such since now.

    Args:
        database: in a transaction.
        before: Unix seconds.
        limit: how many at most.
        ahead: Unix seconds: what is dated later was written before a clock was set back.
    """
    found = database.select(
        "SELECT t.id, t.unannounced_since FROM runs AS t WHERE t.unannounced_since IS NOT NULL "
        "AND (t.unannounced_since < :before OR t.unannounced_since > :ahead) AND t.pruned_at IS NULL "
        f"ORDER BY t.unannounced_since, t.id LIMIT :limit {database.skip_locked}",
        {"before": before, "ahead": max(before, ahead), "limit": limit},
    )
    if not found:
        return []
    now = database.now()
    database.update("runs", ("id",), ("unannounced_since",), [(run_id, now) for run_id, _ in found])
    keys: list[Row] = [(run_id,) for run_id, _ in found]
    ended = database.lookup(rows.ENDED_RUN, "runs", ("id",), keys, only="t.ended_at IS NOT NULL")
    by_id = {row[0]: row for row in ended}
    return [rows.read_ended(by_id[run_id]) for run_id, _ in found if run_id in by_id]


def mark_announced(database: Database, ends: Sequence[EndMark]) -> None:
    """Note that these ends were confirmed.

    Rows that another coordinator has locked are left as they are: waiting for one while it waits for a run of ours
    would be a deadlock, and an end that is announced twice does no harm.
    """
    if ends:
        marks: list[Row] = [(run_id, ended_at, None) for run_id, ended_at in ends]
        database.update("runs", ("id", "ended_at"), ("unannounced_since",), marks, wait=False)


def mark_unannounced(database: Database, since: float) -> int:
    """Let runs that ended since ``since`` (Unix seconds) count as unannounced since now; returns how many.

    Their rows are locked in the order of their ids, as everybody does.
    """
    found = database.select("SELECT id FROM runs WHERE ended_at >= :since", {"since": since})
    if not found:
        return 0
    now = database.now()
    condition = "t.ended_at IS NOT NULL AND t.pruned_at IS NULL"  # it may go on, or be forgotten, meanwhile
    locked = database.lookup("SELECT t.id FROM runs AS t", "runs", ("id",), sorted(found), only=condition, lock=True)
    database.update("runs", ("id",), ("unannounced_since",), [(run_id, now) for (run_id,) in locked])
    return len(locked)

"""Tasks that are queued and whose messages were not confirmed: claimed by one coordinator at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from flowkit.store import rows
from flowkit.store.database import Database, Row
from flowkit.store.protocol import Sendable

AHEAD = 60.0  # seconds: what is dated later than this was written before a clock was set back, so nobody knows its age
MAX_NAMES = 10_000  # nodes named in one statement
UNSENT = "t.status = 'queued' AND t.unsent_since"


def claim_unsent(
    database: Database, *, before: float, limit: int, node: str | None = None, without: Collection[str] = ()
) -> list[Sendable]:
    """Tasks that are unsent since before ``before``; from now on they count as unsent since now.

    Args:
        database: in a transaction.
        before: Unix seconds.
        limit: how many at most; the oldest ones.
        node: only tasks of this node.
        without: no tasks of these nodes.
    """
    now = database.now()
    which, values = _nodes(node, without)
    found = take(database, f"{UNSENT} < :time{which}", order="t.unsent_since", time=before, limit=limit, values=values)
    if len(found) < limit:
        ahead = max(before, now + AHEAD)
        left = limit - len(found)
        found += take(
            database, f"{UNSENT} > :time{which}", order="t.unsent_since", time=ahead, limit=left, values=values
        )
    claimed = [(row[0], row[1], now) for row in found]
    if claimed:
        database.update("tasks", rows.TASK_KEY, ("unsent_since",), claimed)
    return [rows.read_sendable(row, database.id_out) for row in found]


def restore_unsent(database: Database, tasks: Sequence[Sendable]) -> None:
    """Give back what ``claim_unsent`` claimed: it is unsent since the same time, and in the same order, as before."""
    keys = (*rows.TASK_KEY, "attempt")
    restored = [(task.run_id, database.id_in(task.task_id), task.attempt, task.unsent_since) for task in tasks]
    if restored:
        only = f"{rows.IS_QUEUED} AND t.unsent_since IS NOT NULL"
        database.update("tasks", keys, ("unsent_since",), restored, only=only, wait=False)


def take(
    database: Database, condition: str, *, order: str, time: float, limit: int, values: Mapping[str, Any] | None = None
) -> list[Row]:
    """Rows of ``rows.SENDABLE`` of running runs, locked; those that somebody else has locked are left out."""
    return database.select(
        f"{rows.SENDABLE} WHERE {condition} AND run.status = 'running' "
        f"ORDER BY {order}, t.run_id, t.id LIMIT :limit {database.skip_locked}",
        {"time": time, "limit": limit, **(values or {})},
    )


def _nodes(node: str | None, without: Collection[str]) -> tuple[str, dict[str, str]]:
    """A further condition, and its values."""
    if node is not None:
        return " AND t.node = :node", {"node": node}
    values = {f"not{number}": name for number, name in enumerate(islice(without, MAX_NAMES))}
    if not values:
        return "", {}
    return f" AND t.node NOT IN ({', '.join(f':{name}' for name in values)})", values

"""Tasks that wait for a worker for too long, and who might have taken them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flowkit.store import rows
from flowkit.store.database import Database
from flowkit.store.protocol import SentTask
from flowkit.store.refused_rows import read_row
from flowkit.store.resending import AHEAD
from flowkit.wire import messages as wire


def overdue(
    database: Database, before: Mapping[str, float], limit: int, after: SentTask | None = None
) -> list[SentTask]:
    """Queued tasks of running runs that were sent before the time of their node, in the order of their index."""
    if not before:
        return []
    values: dict[str, object] = {"limit": limit}
    late = []
    for number, (node, time) in enumerate(sorted(before.items())):
        values |= {f"node{number}": node, f"time{number}": time}
        late.append(f"(t.node = :node{number} AND t.sent_at < :time{number})")
    behind = ""
    if after is not None:
        behind = "AND (t.run_id, t.scope, t.id) > (:run_id, :scope, :id) "
        values |= {"run_id": after.run_id, "scope": after.scope, "id": database.id_in(after.task_id)}
    found = database.select(
        # CROSS JOIN is how SQLite is told the order: from the few that are outstanding to their runs.
        "SELECT t.run_id, t.id, t.node, t.attempt, t.scope, t.sent_at FROM tasks AS t CROSS JOIN runs AS run "
        f"WHERE {rows.T_OUTSTANDING} AND t.status = 'queued' AND t.leased_until IS NULL AND ({' OR '.join(late)}) "
        f"AND run.id = t.run_id AND run.status = 'running' {behind}"
        "ORDER BY t.run_id, t.scope, t.id LIMIT :limit",
        values,
    )
    return [SentTask(run_id, database.id_out(task_id), *rest) for run_id, task_id, *rest in found]


def date_anew(database: Database, nodes: Collection[str]) -> list[str]:
    """Queued tasks of these nodes that seem to have been sent in the future count as sent now.

    A clock was set back: how long they have waited is not known, and they shall not wait until it has caught up.

    Returns:
        their runs.
    """
    now = database.now()
    names = {f"node{number}": node for number, node in enumerate(nodes)}
    found = database.select(
        "SELECT t.run_id, t.id, t.attempt FROM tasks AS t "
        f"WHERE {rows.T_OUTSTANDING} AND t.status = 'queued' AND t.sent_at > :ahead "
        f"AND t.node IN ({', '.join(f':{name}' for name in names)}) ORDER BY t.run_id, t.id",
        {"ahead": now + AHEAD, **names},
    )
    if found:
        database.update("tasks", (*rows.TASK_KEY, "attempt"), ("sent_at",), [(*row, now) for row in found],
                        only="t.sent_at IS NOT NULL", wait=False)  # fmt: skip
    return [row[0] for row in found]


def heard(database: Database, since: float) -> list[wire.Worker]:
    """The newest announcements of workers that were heard of since then, and are not stopping.

    What seems to be of the future was said before a clock was set back: whoever lives has spoken again since.
    """
    select = (
        "SELECT name, announcement FROM workers WHERE seen_at >= :since AND seen_at <= :ahead AND NOT stopping "
        "ORDER BY name"
    )
    found = database.select(select, {"since": since, "ahead": database.now() + AHEAD})
    workers = (read_row(wire.Worker, told, "workers", name.decode()) for name, told in found)
    return [worker for worker in workers if worker is not None]

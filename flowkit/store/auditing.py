"""All rows of one run, for an audit."""

from __future__ import annotations

from flowkit.flow.audit import Whole
from flowkit.store import rows
from flowkit.store.database import Database

OF_A_TASK = 4  # columns that rows.TASK_STATE leaves out, put before its own
PAYLOADS = rows.TASK_STATE.replace("SELECT", "SELECT t.inputs, t.outputs, t.nodes, t.error,", 1)


def whole(database: Database, run_id: str) -> Whole | None:
    """The run with everything in it; None when there is no such run."""
    found = database.select(f"{rows.RUN_STATE} WHERE t.id = :id AND t.pruned_at IS NULL", {"id": run_id})
    if not found:
        return None
    run = rows.read_run(found[0][:-1], database.id_out)
    ended = database.select(f"{rows.ENDED_RUN} WHERE t.id = :id", {"id": run_id})
    scopes = database.select(f"{rows.SCOPE_STATE} WHERE t.run_id = :id", {"id": run_id})
    tasks = []
    for row in database.select(f"{PAYLOADS} WHERE t.run_id = :id", {"id": run_id}):
        inputs, outputs, nodes, error = row[:OF_A_TASK]
        task = rows.read_task(row[OF_A_TASK:], database.id_out)
        tasks.append(task._replace(inputs=inputs, outputs=outputs, nodes=nodes, error=error))
    since = database.select("SELECT t.unannounced_since FROM runs AS t WHERE t.id = :id", {"id": run_id})[0][0]
    return Whole(
        run._replace(outputs=ended[0][3]),
        tuple(rows.read_scope(row, database.id_out) for row in scopes),
        tuple(tasks),
        since,
    )

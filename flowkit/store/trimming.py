"""Removes the oldest tasks of a loop that goes on, by the rule of ``flow.trimming``."""

from __future__ import annotations

from flowkit.flow import trimming
from flowkit.flow.changes import TrimRun
from flowkit.flow.state import ScopeStatus, TaskStatus
from flowkit.flow.trimming import PastScope, PastTask
from flowkit.store import rows
from flowkit.store.database import Database, Row

PAST_TASKS = (
    "SELECT id, path, scope, status, created_at, leaf_of, inputs_from, nodes IS NOT NULL FROM tasks "
    "WHERE run_id = :run_id"
)
PAST_SCOPES = "SELECT path, parent, status, opener FROM scopes WHERE run_id = :run_id"
# Whoever stays has its inputs itself from now on.
INHERIT = (
    "UPDATE tasks SET inputs = (SELECT source.outputs FROM tasks AS source "
    "WHERE source.run_id = tasks.run_id AND source.id = tasks.inputs_from), inputs_from = NULL "
    "WHERE run_id = :run_id AND id = :id"
)
KEPT_FOR = 86_400.0  # seconds: commands and superseded results may come again so long after they were applied


def trim(database: Database, effect: TrimRun) -> None:
    """Remove tasks and scopes that are history, and count them in the row of the run, which is locked."""
    run: dict[str, object] = {"run_id": effect.run_id}
    tasks = [
        PastTask(database.id_out(task_id), path, scope, TaskStatus(status), created_at, leaf_of,
                 source and database.id_out(source), bool(handled))
        for task_id, path, scope, status, created_at, leaf_of, source, handled in database.select(PAST_TASKS, run)
    ]  # fmt: skip
    scopes = [
        PastScope(path, parent, ScopeStatus(status), opener and database.id_out(opener))
        for path, parent, status, opener in database.select(PAST_SCOPES, run)
    ]
    gone = trimming.trim(tasks, scopes, effect.keep)
    if gone is None:
        return
    for task_id in gone.inherit:
        database.execute(INHERIT, {**run, "id": database.id_in(task_id)})
    keys: list[Row] = [(effect.run_id, database.id_in(task_id)) for task_id in gone.tasks]
    database.delete("tasks", rows.TASK_KEY, keys)
    if gone.scopes:
        database.delete("scopes", ("run_id", "path"), [(effect.run_id, path) for path in gone.scopes])
    for table in ("commands", "superseded"):
        database.execute(
            f"DELETE FROM {table} WHERE run_id = :run_id AND at < :before", {**run, "before": gone.before - KEPT_FOR}
        )
    database.execute(
        "UPDATE runs SET tasks = tasks - :count, trimmed = coalesce(trimmed, 0) + :count, trimmed_before = :before "
        "WHERE id = :run_id",
        {**run, "count": len(keys), "before": gone.before},
    )

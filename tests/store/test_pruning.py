"""A run as large as a run may be goes in bounded steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.flow import changes as c
from flowkit.flow.state import RunStatus
from flowkit.store import open_store
from flowkit.store.address import database_at
from flowkit.store.attempt import attempt
from tests.contract.stores import begun, settled

COUNT = 100_000  # the limit of tasks in a run
MANY = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :more) "
    "INSERT INTO tasks (run_id, id, path, scope, node, status, attempt, tries, inputs, handler, deaths, created_at) "
    "SELECT t.run_id, {fresh}, '0.' || n.i, '', t.node, 'cancelled', 1, 1, t.inputs, t.handler, 0, t.created_at "
    "FROM n CROSS JOIN tasks AS t WHERE t.path = '0'"
)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_hundred_thousand_tasks_go_in_bounded_steps(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, fresh = f"sqlite:///{tmp_path}/flowkit.db", "randomblob(16)"
    if kind == "postgres":
        url, fresh = request.getfixturevalue("postgres_database"), "gen_random_uuid()"
    store = await open_store(url)
    root, changes = begun("huge")
    over = c.EndRun(run_id="huge", status=RunStatus.FAILED, ended_at=2000.0)
    await store.transact(lambda tx: tx.write([*changes, settled(root), over]))
    database = database_at(url)
    attempt(database, lambda d: d.execute(MANY.format(fresh=fresh), {"more": COUNT - 1}))
    database.close()
    steps = []
    while pruned := await store.transact(lambda tx: tx.prune(2500.0, 5_000)):
        steps.append(pruned)
    await store.close()
    assert sum(step.rows for step in steps) == COUNT + 1  # and its scope
    assert [step.rows for step in steps] == [5_000] * 20 + [1]
    assert [step.runs for step in steps] == [0] * 20 + [1]

"""Pages of runs come out of an index, whatever is asked for: nobody waits longer because many others have ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowkit.store import schema
from flowkit.store.address import database_at
from flowkit.store.database import Database
from flowkit.store.queries import SqlQueries

ASKED = {
    "runs_newest": [
        {},
        {"since": 5.0},
        {"after": "9.0_r"},
        {"after": "9.0_r", "since": 5.0},
        {"tags": {"tenant": "acme"}},
    ],
    "runs_by_status": [
        {"status": "failed"},
        {"status": "running", "since": 5.0},
        {"status": "failed", "after": "9.0_r"},
    ],
    "runs_by_node": [{"node": "order"}, {"node": "order", "since": 5.0}, {"node": "order", "after": "9.0_r"}],
    "runs_parent": [{"parent": "r"}],
}
CASES = [(index, which) for index, all_of_it in ASKED.items() for which in all_of_it]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        found: Database = database_at(f"sqlite:///{tmp_path}/flowkit.db")
        schema.prepare(found, upgrade=True)
    else:
        found = database_at(request.getfixturevalue("postgres_database"))
        found.open()
        found.execute("SET enable_seqscan = off")  # else an empty table is read as it is
        found.execute("SET enable_bitmapscan = off")
    yield found
    found.close()


@pytest.mark.parametrize(("index", "which"), CASES, ids=[f"{index}-{'-'.join(which)}" for index, which in CASES])
def test_a_page_of_runs_comes_out_of_an_index(
    database: Database, index: str, which: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if database.url.startswith("sqlite") else "EXPLAIN "
    select = database.select

    def explained(statement: str, values: Any = None) -> Any:
        plans.append("\n".join(str(row[-1]) for row in select(f"{explain}{statement}", values)))
        return select(statement, values)

    monkeypatch.setattr(database, "select", explained)
    assert SqlQueries(database).runs(limit=20, **which) == ([], None)
    (plan,) = plans
    assert index in plan, plan
    assert "B-TREE" not in plan, plan
    assert "Sort" not in plan, plan

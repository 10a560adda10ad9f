"""Pages come out of an index, whatever is asked for: nobody waits longer for them because there are many others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.store import schema
from flowkit.store.address import database_at
from flowkit.store.database import Database
from flowkit.store.queries import SqlQueries
from flowkit.store.transaction import SqlTransaction

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
        for way in ("seqscan", "bitmapscan", "sort"):  # which are as good as any on tables that are empty
            found.execute(f"SET enable_{way} = off")
    yield found
    found.close()


@pytest.fixture
def plans(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the database finds what it is asked for."""
    found: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if database.url.startswith("sqlite") else "EXPLAIN "
    select = database.select

    def explained(statement: str, values: Any = None) -> Any:
        found.append("\n".join(str(row[-1]) for row in select(f"{explain}{statement}", values)))
        return select(statement, values)

    monkeypatch.setattr(database, "select", explained)
    return found


@pytest.mark.parametrize(("index", "which"), CASES, ids=[f"{index}-{'-'.join(which)}" for index, which in CASES])
def test_a_page_of_runs(database: Database, plans: list[str], index: str, which: dict[str, Any]) -> None:
    assert SqlQueries(database).runs(limit=20, **which) == ([], None)
    (plan,) = plans
    assert index in plan, plan
    assert "B-TREE" not in plan, plan
    assert "Sort" not in plan, plan


@pytest.mark.parametrize(
    ("indexes", "take"),
    [
        (["tasks_due"], lambda tx: tx.release_due(5.0, 500, {})),
        (["tasks_unsent", "tasks_unsent"], lambda tx: tx.unsent(before=5.0, limit=500)),
        (["runs_deadline", "scopes_due", "tasks_waits_due"], lambda tx: tx.expired(5.0, 500)),
        (["tasks_leased"], lambda tx: tx.expired_leases(5.0, 500)),
    ],
    ids=["timers", "relay", "expired", "leases"],
)
def test_what_time_brings(
    database: Database, plans: list[str], indexes: list[str], take: Callable[[SqlTransaction], object]
) -> None:
    take(SqlTransaction(database))
    own = [plan for plan in plans if "tasks" in plan or "runs" in plan]
    assert len(own) == len(indexes)
    for index, plan in zip(indexes, own, strict=True):
        assert index in plan, plan
        assert "runs_by_status" not in plan, plan
        if index in ("tasks_due", "tasks_unsent"):  # any number may have the same time, and a page of them is taken
            assert "B-TREE" not in plan, plan
            assert "Sort" not in plan, plan

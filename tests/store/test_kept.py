"""Rows that need not be loaded again, and when they must be."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from flowkit.coordinator.commit import commit
from flowkit.flow.changes import CountTasks
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.flow.fold import keys
from flowkit.flow.limits import Limits
from flowkit.flow.state import Run, RunStatus, Scope, State, Task, TaskStatus
from flowkit.store import Store, open_store
from flowkit.store.kept import Kept
from flowkit.store.loading import load
from flowkit.store.protocol import Transaction
from flowkit.wire import messages as wire

LOADED = {"runs", "tasks", "scopes"}


@pytest.fixture
async def store(tmp_path: Path):
    opened = await open_store(f"sqlite:///{tmp_path}/flowkit.db")
    yield opened
    await opened.close()


@pytest.fixture
def lookups(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tables that transactions have looked into, but for the comparison that all tests make."""
    monkeypatch.setattr("flowkit.store.transaction.load", load)
    looked: list[str] = []
    lookup = store._database.lookup

    def noted(select: str, table: str, *rest: Any, **more: Any) -> Any:
        looked.append(table)
        return lookup(select, table, *rest, **more)

    store._database.lookup = noted
    return looked


async def fold(store: Store, *events: Event):
    return await store.transact(lambda tx: commit(tx, events, secret=b"secret", limits=Limits()))


async def begin(store: Store, run_id: str = "r") -> UUID:
    """Start a run; returns its first task."""
    started = await fold(store, Started(run_id, wire.Start(node="n", run_id=run_id)))
    return started.tasks[0].task_id


def report(task_id: UUID, run_id: str = "r", nodes: tuple[str, ...] = ("n",)) -> Reported:
    return Reported(wire.Result(task_id=task_id, run_id=run_id, nodes=nodes))


async def test_a_chain_is_loaded_once(store: Store, lookups: list[str]) -> None:
    task_id = await begin(store)
    lookups.clear()
    for _ in range(3):
        task_id = (await fold(store, report(task_id))).tasks[0].task_id
    assert lookups == []
    ended = await fold(store, report(task_id, nodes=()))
    assert [run.status for run in ended.ended] == ["succeeded"]
    lookups.clear()
    assert (await fold(store, report(task_id))).tasks == []
    assert set(lookups) >= LOADED, "nothing is kept of a run that has ended"


async def test_what_another_process_writes_is_seen(store: Store, tmp_path: Path) -> None:
    task_id = await begin(store)
    with sqlite3.connect(f"{tmp_path}/flowkit.db") as other:
        other.execute("UPDATE runs SET status = 'cancelled', ended_at = 1")
    other.close()
    assert (await fold(store, report(task_id))).tasks == []
    assert await store.transact(lambda tx: tx.load(keys([report(task_id)])).runs["r"].status) == RunStatus.CANCELLED


async def test_what_was_not_committed_never_was(store: Store) -> None:
    task_id = await begin(store)

    def fails(transaction: Transaction) -> None:
        commit(transaction, [report(task_id)], secret=b"secret", limits=Limits())
        raise RuntimeError("the disk is full, say")

    with pytest.raises(RuntimeError, match="the disk"):
        await store.transact(fails)
    [following] = (await fold(store, report(task_id))).tasks
    assert following.task_id != task_id


async def test_what_is_changed_as_a_set_is_loaded_again(store: Store, lookups: list[str]) -> None:
    task_id, other = await begin(store), await begin(store, "s")
    await fold(store, Commanded(wire.Command(id=uuid4(), kind=wire.CommandKind.PAUSE, run_id="r")))
    lookups.clear()
    await fold(store, report(other, "s"))
    assert lookups == []
    assert (await fold(store, report(task_id))).tasks == []  # held, as its run is paused
    assert set(lookups) >= LOADED


@pytest.mark.parametrize(
    "past",
    [
        lambda tx: tx.unsend_all(),
        lambda tx: tx.write([CountTasks(run_id="r", tasks=7)]),
        lambda tx: tx.unsend(tx.sent_before(1e12, 9)),
    ],
    ids=["unsend_all", "write without a state", "unsend"],
)
async def test_whatever_else_writes_forgets(store: Store, lookups: list[str], past: Callable[..., object]) -> None:
    task_id = await begin(store)
    await store.transact(lambda tx: tx.mark_sent([("r", task_id, 1)], 5.0))
    event = report(task_id)
    lookups.clear()
    assert await store.transact(lambda tx: tx.load(keys([event])).tasks["r", task_id].sent_at) == 5.0
    assert lookups == [], "a mark is kept too"
    await store.transact(past)
    await store.transact(lambda tx: tx.load(keys([event])))
    assert set(lookups) >= LOADED


def state(run_id: str, tasks: int) -> State:
    run = Run(id=run_id, node="n", started_at=1.0)
    rows = [Task(run_id, uuid4(), f"0.{n}", "", "n", 1.0, inputs=b"{}") for n in range(tasks)]
    scope = Scope(run_id, "", None, outstanding=tasks)
    return State({run_id: run}, {}, {(run_id, task.id): task for task in rows}, {(run_id, ""): scope})


def test_runs_that_were_touched_longest_ago_make_room() -> None:
    kept = Kept(room=12)
    first, second = state("first", 2), state("second", 4)
    for one in (first, second, first, state("third", 2)):
        kept.take(one)
    assert [name for name in ("first", "second", "third") if kept.get(name)] == ["first", "third"]
    kept.take(state("wide", 30))
    assert not any(kept.get(name) for name in ("first", "third", "wide"))
    kept.take(second)
    assert kept.get("second") is not None


def test_payloads_and_what_is_over_are_not_kept() -> None:
    kept, one = Kept(), state("r", 2)
    kept.take(one)
    rows = kept.get("r")
    assert rows is not None
    assert [task.inputs for task in rows.tasks.values()] == [None, None]
    key, task = next(iter(one.tasks.items()))
    one.tasks[key] = task._replace(status=TaskStatus.SUCCEEDED)
    kept.take(one)
    assert len(rows.tasks) == 1
    one.runs["r"] = one.runs["r"]._replace(status=RunStatus.FAILED)
    kept.take(one)
    assert kept.get("r") is None


def test_what_authors_wrote_at_length_is_not_kept() -> None:
    kept, one, long = Kept(), state("r", 2), b"x" * 1_000
    key, task = next(iter(one.tasks.items()))
    one.tasks[key] = task._replace(wait=long, status=TaskStatus.WAITING)
    one.scopes["r", "0.1"] = Scope("r", "0.1", "", then=long)
    kept.take(one)
    rows = kept.get("r")
    assert rows is not None
    assert (list(rows.scopes), len(rows.tasks)) == ([""], 1)
    one.runs["r"] = one.runs["r"]._replace(tags=long)
    kept.take(one)
    assert kept.get("r") is None


async def test_postgresql_keeps_nothing_between_transactions(postgres_database: str) -> None:
    store = await open_store(postgres_database)
    try:
        task_id = await begin(store)
        store._kept.take(State({"r": Run(id="r", node="n", started_at=1.0, status=RunStatus.PAUSED)}))
        assert len((await fold(store, report(task_id))).tasks) == 1
    finally:
        await store.close()

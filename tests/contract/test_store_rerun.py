"""Copying a run up to one of its tasks, over every store: beside the same over rows in memory, row by row."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.coordinator.commit import commit
from flowkit.flow import changes as c
from flowkit.flow import paths
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import Run, RunStatus, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.store import Inline, Store, open_store
from flowkit.store.protocol import Sendable, TaskRow
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import wrap
from tests.contract.stores import ODD, load, loaded, write
from tests.flow.rows import Rows
from tests.flow.test_order import answer, plans

SECRET = b"secret"  # of the rows in memory


async def feed(store: Store, *events: Event) -> list[Sendable]:
    """One transaction of the coordinator; what is to be sent."""
    committed = await store.transact(lambda tx: commit(tx, events, secret=SECRET, limits=Limits()))
    found = await store.transact(lambda tx: tx.unsent(before=tx.now(), limit=1_000)) if committed.released else []
    return [*committed.tasks, *found]


async def carry_out(store: Store, tasks: list[Sendable], *, most: int = 1_000) -> list[UUID]:
    """Run tasks and what follows, as the plans in their inputs say; ids of those that ran."""
    ran: list[UUID] = []
    while tasks and len(ran) < most:
        task = tasks.pop(0)
        plan = codec.loads(task.inputs)["plan"]
        words = {"status": "failed"} if plan[0] == "fail" else {"nodes": tuple(map(wrap, answer(plan)))}
        result = wire.Result(task_id=task.task_id, run_id=task.run_id, outputs={"ran": str(task.task_id)}, **words)
        tasks += await feed(store, Reported(result))
        ran.append(task.task_id)
    return ran


async def shown(store: Store, run_id: str) -> dict[str, TaskRow]:
    return {row.path: row for row in await store.query(lambda q: q.tasks(run_id, payloads=True))}


async def all_of(store: Store, run_id: str, paths_of_scopes: set[str]) -> tuple[Run, list[Task], list[Scope]]:
    """The rows of a run as the core sees them."""
    keys = frozenset((run_id, row.id) for row in (await shown(store, run_id)).values())
    scopes = frozenset((run_id, path) for path in paths_of_scopes)
    state: State = await load(store, runs=frozenset({run_id}), tasks=keys, scopes=scopes)
    order = sorted(state.tasks.values(), key=lambda task: paths.order(task.path))
    return state.runs[run_id], order, [state.scopes[key] for key in sorted(state.scopes)]


def in_memory(rows: Rows, run_id: str) -> tuple[Run, list[Task], list[Scope]]:
    """The same of rows in memory, without what is not loaded."""
    tasks = [
        replace(task, inputs=None, outputs=None, nodes=None, error=None, message="")
        for task in rows.tasks.values()
        if task.run_id == run_id
    ]
    scopes = [rows.scopes[key] for key in sorted(rows.scopes) if key[0] == run_id]
    return rows.runs[run_id], sorted(tasks, key=lambda task: paths.order(task.path)), scopes


def rerun(run_id: str, new: str, task_id: UUID | None = None, **more: object) -> Commanded:
    return Commanded(wire.Command(id=uuid4(), kind="rerun", run_id=run_id, new_run_id=new, task_id=task_id, **more))


def alike(task: Task) -> Task:
    """Without what the two say differently: how often a task was opened again, and when one was cancelled."""
    return replace(task, attempt=1, tries=1, finished_at=None)


async def same_in_both(store: Store, plan: object, steps: int, choice: object) -> None:
    run_id, new = uuid4().hex, uuid4().hex
    start = Started(run_id, wire.Start(node="n", run_id=run_id, inputs={"plan": plan}))
    rows = Rows()
    rows.feed(start)
    tasks = await feed(store, start)
    for _ in range(steps):
        if not tasks:
            break
        task = tasks.pop(0)
        its_plan = codec.loads(task.inputs)["plan"]
        words = {"status": "failed"} if its_plan[0] == "fail" else {"nodes": tuple(map(wrap, answer(its_plan)))}
        result = Reported(wire.Result(task_id=task.task_id, run_id=run_id, outputs={"at": 1}, **words))
        tasks += await feed(store, result)
        rows.feed(result)
    if not rows.runs[run_id].status.ended:
        cancel = Commanded(wire.Command(id=uuid4(), kind="cancel", run_id=run_id))
        rows.feed(cancel)
        await feed(store, cancel)
    command = rerun(run_id, new, choice([task.id for task in rows.tasks.values()]))
    rows.feed(command)
    queued = await feed(store, command)
    run, copied, scopes = await all_of(store, new, {path for key, path in rows.scopes if key == new})
    expected, expected_tasks, expected_scopes = in_memory(rows, new)
    assert (run.status, run.tasks, run.parent, run.origin) == (RunStatus.RUNNING, expected.tasks, run_id, "rerun")
    assert list(map(alike, copied)) == list(map(alike, expected_tasks))
    assert scopes == expected_scopes
    before = {row.id for row in copied if row.status is TaskStatus.SUCCEEDED}
    assert before.isdisjoint(await carry_out(store, [task for task in queued if task.run_id == new]))
    ended = await store.query(lambda q: q.run(new))
    assert ended is not None
    assert ended.ended_at is not None


@pytest.mark.parametrize("failures", [False, True])
def test_any_task_of_any_workflow(failures: bool) -> None:
    """On SQLite, many times; the cases below are those that matter, on every store."""
    with asyncio.Runner() as runner:
        store = runner.run(open_store("sqlite://", executor=Inline(), clock=lambda: 1000.0))

        @settings(max_examples=60, deadline=None)
        @given(plans(failures=failures), st.integers(0, 40), st.data())
        def check(plan: object, steps: int, data: st.DataObject) -> None:
            runner.run(same_in_both(store, plan, steps, lambda ids: data.draw(st.sampled_from(ids))))

        check()
        runner.run(store.close())

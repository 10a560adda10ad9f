"""Copying a run up to one of its tasks, over every store: beside the same over rows in memory, row by row."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.coordinator.commit import commit
from flowkit.flow import paths
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import Run, RunStatus, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.store import Inline, Store, open_store
from flowkit.store.protocol import Sendable
from flowkit.store.views import TaskRow
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait, wrap
from tests.contract.stores import Clock, load
from tests.flow.rows import Rows
from tests.flow.test_order import answer, plans

SECRET = b"secret"  # of the rows in memory
ODD = "a\u2028é\x00\x1b"


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
        task._replace(inputs=None, outputs=None, nodes=None, error=None, message="")
        for task in rows.tasks.values()
        if task.run_id == run_id
    ]
    scopes = [rows.scopes[key] for key in sorted(rows.scopes) if key[0] == run_id]
    return rows.runs[run_id], sorted(tasks, key=lambda task: paths.order(task.path)), scopes


def rerun(run_id: str, new: str, task_id: UUID | None = None, **more: object) -> Commanded:
    return Commanded(wire.Command(id=uuid4(), kind="rerun", run_id=run_id, new_run_id=new, task_id=task_id, **more))


def alike(task: Task) -> Task:
    """Without what the two say differently: how often a task was opened again, and when one was cancelled."""
    return task._replace(attempt=1, tries=1, finished_at=None)


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


class Flow:
    """Runs over one store, with the test as all their workers."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.sent: list[Sendable] = []

    async def start(self, run_id: str = "r", **words: object) -> None:
        await self.feed(Started(run_id, wire.Start(node="a", run_id=run_id, inputs={"x": ODD}, **words), "trace"))

    async def feed(self, *events: Event) -> None:
        self.sent = await feed(self.store, *events)

    async def task(self, path: str, run_id: str = "r") -> TaskRow:
        return (await shown(self.store, run_id))[path]

    async def report(self, path: str, nodes: tuple = (), outputs: object = None, run_id: str = "r", **words) -> None:
        row = await self.task(path, run_id)
        items = tuple(map(wrap, nodes))
        await self.feed(
            Reported(wire.Result(task_id=row.id, run_id=run_id, nodes=items, outputs=outputs or {}, **words))
        )

    async def rerun(self, path: str | None = None, run_id: str = "r", new: str = "new", **words: object) -> None:
        task_id = None if path is None else (await self.task(path, run_id)).id
        await self.feed(rerun(run_id, new, task_id, **words))

    async def statuses(self, run_id: str = "new") -> dict[str, str]:
        return {path: row.status for path, row in (await shown(self.store, run_id)).items()}

    async def scope(self, path: str, run_id: str = "new") -> Scope:
        return (await load(self.store, scopes=frozenset({(run_id, path)}))).scopes[run_id, path]


@pytest.fixture
def flow(store: Store, clock: Clock) -> Flow:
    return Flow(store, clock)


async def test_payloads_are_taken_over_as_they_are(flow: Flow) -> None:
    await flow.start(tags={"tenant": "acme"}, deadline=60)
    await flow.report("0", ["b", Send("c", {"own": ODD})], {"y": ODD}, worker=ODD, message=ODD)
    await flow.report("0.0", [], {"z": 1})
    await flow.report("0.1")
    flow.clock.now += 600
    await flow.rerun("0.1")
    before, after = await shown(flow.store, "r"), await shown(flow.store, "new")
    for path in ("0", "0.0"):
        assert after[path] == replace(before[path], run_id="new", id=after[path].id)
        assert after[path].id != before[path].id
    run = await flow.store.query(lambda q: q.run("new"))
    assert run is not None
    assert (run.parent, run.origin, run.tags, run.tasks) == ("r", "rerun", b'{"tenant":"acme"}', 3)
    assert codec.loads(run.inputs or b"") == {"x": ODD}
    state = await load(flow.store, runs=frozenset({"new"}))
    assert (state.runs["new"].deadline, state.runs["new"].traceparent) == (1660.0, "trace")
    [sent] = flow.sent
    assert (sent.run_id, sent.node, codec.loads(sent.inputs)) == ("new", "c", {"own": ODD})
    assert (sent.task_id, sent.attempt, sent.tries) == (after["0.1"].id, 2, 1)
    await flow.report("0.1", [], {"w": 1}, "new")
    run = await flow.store.query(lambda q: q.run("new"))
    assert run is not None
    assert codec.loads(run.outputs or b"") == {"results": [{"z": 1}, {"w": 1}]}


async def test_edited_inputs_take_the_place_of_those_it_had(flow: Flow) -> None:
    await flow.start()
    await flow.report("0", ["b"], {"y": 1})
    await flow.report("0.0")
    await flow.rerun("0.0", input={"y": ODD})
    await flow.rerun(None, new="root", input={})
    assert codec.loads((await flow.task("0.0", "new")).inputs or b"") == {"y": ODD}
    run = await flow.store.query(lambda q: q.run("root"))
    assert run is not None
    assert (run.inputs, run.tasks) == (b"{}", 1)


async def test_a_branch_whose_failure_was_its_value(flow: Flow) -> None:
    await flow.start()
    sends = [Send("b", {}), Send("b", {})]
    await flow.report("0", [Gather(sends, then="c", return_exceptions=True, timeout=10)])
    await flow.report("0.0.0", [Gather(sends, then="d", timeout=5)], {"n": 1})
    await flow.report("0.0.0.0.0", ["e"])
    await flow.report("0.0.1", status="failed")
    flow.clock.now += 6
    await flow.feed(*(await flow.store.transact(lambda tx: tx.expired(tx.now(), 9))))
    await flow.report("0.0.then")
    assert (await flow.task("0.0.0")).status == "failed"
    flow.clock.now += 600
    await flow.rerun("0.0.0.0.0")
    assert await flow.statuses() == {
        "0": "succeeded", "0.0.0": "succeeded", "0.0.0.0.0": "queued", "0.0.0.0.1": "queued", "0.0.1": "failed",
    }  # fmt: skip
    assert (await flow.task("0.0.0", "new")).error is None
    inner, outer, root = [await flow.scope(path) for path in ("0.0.0.0", "0.0", "")]
    assert (inner.status, inner.outstanding, inner.due) == (ScopeStatus.OPEN, 2, 1611.0)
    assert (outer.status, outer.outstanding, outer.due) == (ScopeStatus.OPEN, 1, 1616.0)
    assert (root.status, root.outstanding) == (ScopeStatus.OPEN, 1)
    for path in ("0.0.0.0.0", "0.0.0.0.1", "0.0.0.0.then"):
        await flow.report(path, [], {"p": path}, "new")
    results = codec.loads((await flow.task("0.0.then", "new")).inputs or b"")["results"]
    assert [sorted(result) for result in results] == [["p"], ["error"]]


async def test_a_wait_waits_anew(flow: Flow) -> None:
    await flow.start()
    await flow.report("0", [Wait("go", then="b", timeout=60), Wait("never", then="b"), "c"])
    await flow.feed(Commanded(wire.Command(id=uuid4(), kind="signal", run_id="r", name="go")))
    await flow.feed(Commanded(wire.Command(id=uuid4(), kind="cancel", run_id="r")))
    flow.clock.now += 600
    await flow.rerun("0.0")
    assert await flow.statuses() == {"0": "succeeded", "0.0": "waiting", "0.1": "waiting", "0.2": "queued"}
    assert [(await flow.task(path, "new")).due for path in ("0.0", "0.1")] == [1660.0, None]
    await flow.feed(Commanded(wire.Command(id=uuid4(), kind="signal", run_id="new", name="go")))
    assert (await flow.statuses())["0.0.0"] == "queued"


async def test_a_delay_begins_anew(flow: Flow) -> None:
    await flow.start()
    await flow.report("0", [Send("b", delay=100), "c", "d"])
    await flow.report("0.1", status="retry", attempt=1, retry_in=100)
    flow.clock.now += 30
    await flow.report("0.2", status="failed")
    for run_id, new in (("r", "new"), ("new", "newer")):
        flow.clock.now += 600
        await flow.rerun("0.2", run_id, new)
        assert await flow.statuses(new) == {"0": "succeeded", "0.0": "held", "0.1": "queued", "0.2": "queued"}
        row = await flow.task("0.0", new)
        assert (row.held_for, row.due) == ("delay", flow.clock.now + 100)
        await flow.report("0.2", run_id=new, status="failed")
    await flow.rerun("0.0", "newer", "now")
    assert (await flow.statuses("now"))["0.0"] == "queued", "whoever reruns it wants it now"


async def test_a_window_goes_on_branch_by_branch(flow: Flow) -> None:
    await flow.start()
    await flow.report("0", [Gather([Send("b", {}) for _ in range(4)], then="c", max_concurrency=1)])
    await flow.report("0.0.0")
    await flow.report("0.0.1", status="failed")
    await flow.rerun("0.0.1")
    assert list((await flow.statuses()).values()) == ["succeeded", "succeeded", "queued", "held", "held"]
    for path in ("0.0.1", "0.0.2", "0.0.3", "0.0.then"):
        assert (await flow.task(path, "new")).status == "queued"
        await flow.report(path, run_id="new")
    assert (await flow.store.query(lambda q: q.run("new"))).status == "succeeded"


async def test_a_rerun_in_one_batch_with_its_end_and_with_another_of_its_id(flow: Flow) -> None:
    await flow.start()
    await flow.report("0", ["b"])
    await flow.report("0.0")
    task_id = (await flow.task("0.0")).id
    cancel = Commanded(wire.Command(id=uuid4(), kind="cancel", run_id="new"))
    await flow.feed(rerun("r", "new", task_id), rerun("r", "new"), cancel)
    assert await flow.statuses() == {"0": "succeeded", "0.0": "cancelled"}
    assert (await flow.store.query(lambda q: q.run("new"))).status == "cancelled"
    await flow.feed(rerun("new", "newer", None))
    assert await flow.statuses("newer") == {"0": "queued"}


async def test_what_is_cancelled_in_the_same_batch_is_rerun(flow: Flow) -> None:
    await flow.start()
    await flow.report("0", ["b", "c"])
    cancel = Commanded(wire.Command(id=uuid4(), kind="cancel", run_id="r"))
    await flow.feed(cancel, rerun("r", "new", (await flow.task("0.0")).id))
    assert await flow.statuses("r") == {"0": "succeeded", "0.0": "cancelled", "0.1": "cancelled"}
    assert await flow.statuses("new") == {"0": "succeeded", "0.0": "queued", "0.1": "queued"}


async def test_many_branches_are_copied(flow: Flow) -> None:
    await flow.start()
    count = 2_000
    await flow.report("0", [Gather([Send("b", {"n": n}) for n in range(count)], then="c")])
    rows = await shown(flow.store, "r")
    results = [Reported(wire.Result(task_id=row.id, run_id="r", outputs={"n": 1})) for row in rows.values()][1:]
    await flow.feed(*results)
    await flow.report("0.0.then")
    await flow.rerun("0.0.777")
    counted = Counter((await flow.statuses()).values())
    assert counted == {"succeeded": count, "queued": 1}

"""A long loop: every store keeps of it what rows in memory keep, and goes on from there."""

from __future__ import annotations

from uuid import uuid4

import pytest

from flowkit.coordinator.commit import commit
from flowkit.flow.audit import problems
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import TaskStatus
from flowkit.store import Store
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Wait, wrap
from tests.contract.stores import Clock
from tests.flow.rows import SECRET, Rows

LIMITS = Limits(max_depth=10_000, max_history=20)
ROUNDS = 45
LOOPS = {
    "a chain": {"a": ["a"]},
    "a Gather in each round": {"a": [Gather(["b", "c"], then="a", return_exceptions=True)], "b": [], "c": None},
    "one at a time in each round": {"a": [Gather(["b", "b"], then="a", max_concurrency=1)], "b": []},
    "a handler in each round": {"a": None, "mend": ["a"]},
    "in a branch": {"begin": [Gather(["a", "a"], then="end")], "a": ["a"]},
    "a wait in each round": {"a": [Wait("go", then="a")]},
}


class Loop:
    """The same run in a store and in rows in memory."""

    def __init__(self, store: Store, clock: Clock, nodes: dict[str, list[object] | None]) -> None:
        self.store, self.clock, self.nodes = store, clock, nodes
        self.rows = Rows(limits=LIMITS, on_error={"a": "mend"} if "mend" in nodes else {})

    async def feed(self, *events: Event) -> None:
        self.clock.now += 1
        self.rows.now = self.clock.now
        await self.store.transact(lambda tx: commit(tx, events, secret=SECRET, limits=LIMITS))
        self.rows.feed(*events)

    async def command(self, kind: str, **words: object) -> None:
        await self.feed(Commanded(wire.Command(id=uuid4(), kind=kind, **({"run_id": "r"} | words))))

    async def play(self) -> None:
        for path in self.rows.outstanding():
            task = self.rows.at(path)
            if task.status is TaskStatus.WAITING:
                await self.command("signal", name="go")
            elif task.status is TaskStatus.QUEUED:
                items = self.nodes[task.node]
                words = {"status": "failed"} if items is None else {"nodes": tuple(map(wrap, items))}
                result = wire.Result(task_id=task.id, run_id="r", outputs={"at": path[-20:]}, **words)
                await self.feed(Reported(result))

    async def compare(self, run: str = "r") -> None:
        whole = await self.store.query(lambda queries: queries.whole(run))
        expected = self.rows.whole(run)
        assert whole is not None
        assert list(problems(whole, SECRET)) == []
        assert (whole.run.tasks, whole.run.trimmed) == (expected.run.tasks, expected.run.trimmed)
        told, wanted = ({t.path: t for t in one.tasks} for one in (whole, expected))
        assert told.keys() == wanted.keys()
        for path, task in told.items():
            same = wanted[path]
            assert (task.status, task.leaf_of, task.unfolded) == (same.status, same.leaf_of, same.unfolded)
            assert task.id == same.id
            inputs = await self.store.query(lambda queries, task=task: queries.task_inputs(run, task.id))
            assert inputs is not None or task.path == "0"
        assert {s.path: s.status for s in whole.scopes} == {s.path: s.status for s in expected.scopes}


@pytest.mark.parametrize("name", LOOPS)
async def test_a_long_loop(store: Store, clock: Clock, name: str) -> None:
    loop = Loop(store, clock, LOOPS[name])
    if loop.rows.on_error:
        node = wire.NodeInfo(name="a", on_error="mend")
        announced = wire.Worker(worker="w", version="1", nodes=(node,), running=(), stopping=False, concurrency=1)
        await store.transact(lambda tx: tx.record_workers([announced], 1000.0))
    await loop.feed(Started("r", wire.Start(node="begin" if "begin" in loop.nodes else "a", run_id="r")))
    for _ in range(ROUNDS):
        await loop.play()
    await loop.compare()
    row = await store.query(lambda queries: queries.run("r"))
    assert row is not None
    assert row.trimmed > 10
    assert row.tasks < 60
    assert row.inputs == b"{}"
    await loop.command("pause")
    await loop.command("resume")
    await loop.play()
    await loop.compare()
    await loop.command("cancel")
    newest = max((task for task in loop.rows.tasks.values() if task.node == "a"), key=lambda task: task.created_at)
    await loop.command("rerun", task_id=newest.id, new_run_id="new")
    await loop.compare("new")
    await loop.command("rerun", new_run_id="anew")
    await loop.compare("anew")

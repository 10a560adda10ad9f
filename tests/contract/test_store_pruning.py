"""What is old is removed in bounded steps, and nothing else is."""

from __future__ import annotations

from uuid import uuid4

from flowkit.flow import changes as c
from flowkit.flow.state import RunStatus, Task, TaskStatus
from flowkit.store import Store
from flowkit.store.protocol import Pruned
from flowkit.wire import messages as wire
from tests.contract.stores import begun, load, settled, task, write


async def ended(store: Store, run_id: str, at: float, *, tasks: int = 1) -> list[Task]:
    """A run that ended then, with some tasks."""
    root, changes = begun(run_id)
    others = [task(run_id, f"0.{number}", id=uuid4()) for number in range(tasks - 1)]
    done = [settled(one) for one in (root, *others)]
    over = c.EndRun(run_id=run_id, status=RunStatus.FAILED, ended_at=at)
    await write(store, [*changes, *map(c.AddTask, others), *done, over])
    return [root, *others]


async def step(store: Store, before: float, limit: int) -> Pruned:
    return await store.transact(lambda tx: tx.prune(before, limit))


async def archive(store: Store, *lines: tuple[float, str | None]) -> None:
    logs = [
        wire.Log(ts=ts, level="INFO", message=f"{ts} {run_id}", run_id=run_id, worker="w", seq=number)
        for number, (ts, run_id) in enumerate(lines)
    ]
    await store.transact(lambda tx: tx.archive(logs, 1))


async def test_one_large_run_goes_in_steps_and_nobody_sees_half_of_it(store: Store) -> None:
    await ended(store, "large", 2000.0, tasks=25)
    await ended(store, "young", 3000.0)
    steps = [await step(store, 2500.0, 10) for _ in range(2)]
    assert steps == [Pruned(runs=0, rows=10)] * 2
    assert await store.query(lambda q: q.run("large")) is None
    listed, _ = await store.query(lambda q: q.runs(limit=9))
    assert [run.id for run in listed] == ["young"]
    assert await store.query(lambda q: q.run_counts()) == {"failed": 1}
    assert await step(store, 2500.0, 10) == Pruned(runs=1, rows=6)  # five tasks and the scope
    assert await step(store, 2500.0, 10) == Pruned(runs=0, rows=0)
    assert not await step(store, 2500.0, 10)
    assert await store.query(lambda q: q.tasks("large")) == []
    assert len(await store.query(lambda q: q.tasks("young"))) == 1


async def test_whoever_names_a_run_that_is_half_removed_finds_none_and_may_begin_it_anew(store: Store) -> None:
    """A retry of what is left of it would be wrong, and the rows that are left would be in the way of a new one."""
    tasks = await ended(store, "r", 2000.0, tasks=25)
    assert await step(store, 2500.0, 10) == Pruned(runs=0, rows=10)
    state = await load(store, runs=frozenset({"r"}), roots=frozenset({"r"}),
                       tasks=frozenset(("r", one.id) for one in tasks))  # fmt: skip
    assert (state.runs, state.inputs, state.tasks) == ({}, {}, {})
    await write(store, begun("r", id=tasks[0].id)[1])
    assert len(await store.query(lambda q: q.tasks("r"))) == 1
    assert await step(store, 2500.0, 10) == Pruned(runs=0, rows=0)


async def test_many_small_runs_go_together_the_oldest_first(store: Store) -> None:
    for number in range(5):
        await ended(store, f"r{number}", 2004.0 - number)
    assert await step(store, 2002.5, 1_000) == Pruned(runs=3, rows=6)
    listed, _ = await store.query(lambda q: q.runs(limit=9))
    assert {run.id for run in listed} == {"r0", "r1"}


async def test_what_has_not_ended_stays_however_old_it_is(store: Store) -> None:
    for run_id, status in (("running", None), ("paused", RunStatus.PAUSED)):
        await write(store, begun(run_id)[1])
        if status is not None:
            await write(store, [c.MoveRun(run_id, status)])
    await ended(store, "retried", 2000.0)
    await write(store, [c.MoveRun("retried", RunStatus.RUNNING)])
    assert not await step(store, 1e12, 1_000)


async def test_lines_of_no_run_go_by_their_age_a_few_at_a_time(store: Store) -> None:
    await write(store, begun("running")[1])
    await ended(store, "ended", 1000.0)
    await archive(store, (10.0, None), (11.0, "running"), (12.0, "pruned-long-ago"), (13.0, "ended"), (13.0, None),
                  (13.0, None), (20.0, None), (21.0, "pruned-long-ago"))  # fmt: skip
    behind, removed = None, []
    while True:
        count, behind = await store.transact(lambda tx, behind=behind: tx.prune_lines(20.0, 2, behind=behind))
        removed.append(count)
        if behind is None:
            break
    assert removed == [1, 1, 2, 0]
    left = await store.query(lambda q: q.logs())
    assert [line.ts for line in left] == [11.0, 13.0, 20.0, 21.0]


async def test_old_lines_of_a_loop_that_was_trimmed_go_by_their_age(store: Store) -> None:
    _, changes = begun("r")
    tasks = [task("r", f"0.{n}", created_at=1000.0 + n, status=TaskStatus.SUCCEEDED) for n in range(4)]
    await write(store, [*changes, *map(c.AddTask, tasks)])
    await archive(store, (10.0, "r"), (30.0, "r"))
    assert await store.transact(lambda tx: tx.prune_lines(20.0, 9)) == (0, None)
    await write(store, [c.TrimRun("r", 2)])
    assert await store.transact(lambda tx: tx.prune_lines(20.0, 9)) == (1, None)
    row = await store.query(lambda q: q.run("r"))
    assert (row and row.trimmed) == 2


async def test_lines_of_a_run_go_with_it(store: Store) -> None:
    await ended(store, "r", 1000.0)
    await archive(store, *((float(number), "r") for number in range(7)))
    assert [await step(store, 2000.0, 4) for _ in range(3)] == [
        Pruned(runs=0, rows=4), Pruned(runs=0, rows=4), Pruned(runs=1, rows=1)
    ]  # fmt: skip
    assert await store.query(lambda q: q.logs()) == []


async def test_workers_that_were_not_heard_of_for_long_are_forgotten(store: Store) -> None:
    for name, at in (("a", 10.0), ("b\x00", 11.0), ("c", 12.0), ("d", 20.0)):
        told = wire.Worker(worker=name, nodes=())
        await store.transact(lambda tx, told=told, at=at: tx.record_workers([told], at))
    assert [await store.transact(lambda tx: tx.prune_workers(20.0, 2)) for _ in range(3)] == [2, 1, 0]
    assert [worker.name for worker in await store.query(lambda q: q.workers(seen_since=0))] == ["d"]

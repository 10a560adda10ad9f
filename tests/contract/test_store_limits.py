"""Limits of nodes in the tables: what is counted, what goes out, in which order, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

import pytest

from flowkit.flow import changes as c
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import RunStatus, Task, TaskStatus
from flowkit.store import Store, open_store
from flowkit.store.admission import FORGET, MOST, SLOTS
from flowkit.store.protocol import Admitted, Transaction
from flowkit.wire import messages as wire
from tests.contract.stores import NUL, Clock, begun, loaded, settled, task, write

TWO = {"n": NodeLimit(limit=2)}
RATE = {"n": NodeLimit(rate="1/s")}


def held(path: str, slot: str = "n", **fields: object) -> Task:
    return task("r", path, node=slot.partition(" ")[0], status=TaskStatus.HELD, held_for="limit", slot=slot, **fields)


async def admit(store: Store, limits: dict[str, NodeLimit], *slots: str) -> list[str]:
    """Paths of the tasks that went out."""
    admitted = await store.transact(lambda tx: tx.admit(slots or ["n"], limits))
    sendables = await store.transact(lambda tx: tx.sendables(admitted.tasks))
    assert [(one.run_id, one.task_id) for one in sendables] == admitted.tasks, "all of them can be sent"
    rows = await store.query(lambda q: {row.id: row.path for row in q.tasks("r")})
    return [rows[task_id] for _, task_id in admitted.tasks]


async def hold(store: Store, *tasks: Task) -> None:
    _, changes = begun(outstanding=1 + len(tasks))
    await write(store, [*changes, *map(c.AddTask, tasks)])


async def test_as_many_go_out_as_there_is_room_for_the_oldest_first(store: Store) -> None:
    tasks = [held(f"0.{number}", created_at=1005.0 - number) for number in range(4)]
    await hold(store, *tasks)
    assert await admit(store, TWO) == ["0.3", "0.2"]
    assert await admit(store, TWO) == []
    out = await loaded(store, *tasks[2:])
    assert {(row.status, row.held_for, row.sent_at) for row in out} == {(TaskStatus.QUEUED, None, None)}
    await write(store, [settled(tasks[3])])
    assert await admit(store, TWO) == ["0.1"]


async def test_what_runs_counts_and_what_waits_for_another_reason_does_not(store: Store) -> None:
    tasks = [held(f"0.{number}") for number in range(5)]
    running, retried, paused, cancelled, waiting = tasks
    await hold(store, *tasks)

    def moved(of: Task, status: TaskStatus, held_for: str | None) -> c.MoveTask:
        return c.MoveTask(run_id="r", task_id=of.id, status=status, attempt=1, tries=1, held_for=held_for, sent_at=1.0)

    await write(store, [
        moved(running, TaskStatus.RUNNING, None), moved(retried, TaskStatus.HELD, "retry"),
        moved(paused, TaskStatus.HELD, "paused"), settled(cancelled, TaskStatus.CANCELLED, outputs=None),
    ])  # fmt: skip
    assert await admit(store, TWO) == [waiting.path]


async def test_slots_are_counted_apart(store: Store) -> None:
    odd = f"n k={NUL}"
    await hold(store, *(held(f"0.{n}", slot) for n, slot in enumerate(["n k=1", "n k=1", "n k=1", odd, "m"])))
    limits = {"n": NodeLimit(limit=1, key="k"), "m": NodeLimit(limit=1)}
    assert await admit(store, limits, "n k=1", odd) == ["0.0", "0.3"]
    assert await store.transact(lambda tx: tx.slots_held(9)) == ["m", "n k=1"]
    assert await admit(store, limits, "m", "n k=1") == ["0.4"]


async def test_a_node_without_limits_any_more_lets_all_go(store: Store) -> None:
    await hold(store, *(held(f"0.{n}") for n in range(5)))
    assert len(await admit(store, {})) == 5


async def test_a_transaction_takes_so_many_and_says_that_there_are_more(store: Store) -> None:
    await hold(store, *(held(f"0.{n}") for n in range(MOST + 1)))
    first = await store.transact(lambda tx: tx.admit(["n"], {}))
    assert (len(first.tasks), first.more) == (MOST, True)
    second = await store.transact(lambda tx: tx.admit(["n"], {}))
    assert (len(second.tasks), second.more) == (1, False)
    many = await store.transact(lambda tx: tx.admit([f"n k={n}" for n in range(SLOTS + 1)], {}))
    assert many == Admitted([], more=True)


async def test_slots_that_hold_tasks_are_found_page_by_page(store: Store) -> None:
    names = [f"n k={n}" for n in "abcde"]
    await hold(store, *(held(f"0.{2 * at + more}", name) for at, name in enumerate(names) for more in (0, 1)))
    first = await store.transact(lambda tx: tx.slots_held(2))
    second = await store.transact(lambda tx: tx.slots_held(9, after=first[-1]))
    assert (first, second) == (names[:2], names[2:])
    assert await store.transact(lambda tx: tx.slots_held(9, after=names[-1])) == []


async def test_a_rate_lets_one_out_at_a_time_and_says_when_the_next_is_due(store: Store, clock: Clock) -> None:
    await hold(store, *(held(f"0.{n}", created_at=1000.0 + n) for n in range(3)))
    assert await admit(store, RATE) == ["0.0"]
    assert await admit(store, RATE) == []
    assert await due(store, 1000.9) == []
    assert await due(store, 1001.0) == ["n"]
    clock.now = 1001.2
    assert await admit(store, RATE) == ["0.1"]
    assert await due(store, 1001.9) == []
    clock.now = 1002.0
    assert await admit(store, RATE) == ["0.2"], "it was late before, and is not late for ever"


async def test_a_clock_that_is_set_back_holds_up_a_rate_for_one_interval(store: Store, clock: Clock) -> None:
    await hold(store, *(held(f"0.{n}", created_at=1000.0 + n) for n in range(2)))
    clock.now = 4600.0
    assert await admit(store, RATE) == ["0.0"]
    clock.now = 1000.0
    assert await admit(store, RATE) == []
    assert await due(store, 1001.0) == ["n"]
    clock.now = 1001.0
    assert await admit(store, RATE) == ["0.1"]


async def test_a_rate_that_nobody_uses_is_forgotten(store: Store, clock: Clock) -> None:
    await hold(store, held("0.0"))
    assert await admit(store, RATE) == ["0.0"]
    clock.now = 1002.0
    assert await admit(store, RATE) == []
    assert await due(store, 1002.0 + FORGET - 1) == []
    clock.now = 1002.0 + FORGET
    assert await due(store, clock.now) == ["n"]
    assert await admit(store, RATE) == []
    assert await due(store, 1e9) == []


async def test_a_slot_whose_node_has_no_rate_any_more_is_forgotten(store: Store, clock: Clock) -> None:
    await hold(store, held("0.0"))
    assert await admit(store, RATE) == ["0.0"]
    clock.now = 2000.0
    assert await due(store, 2000.0) == ["n"]
    assert await admit(store, {}) == []
    assert await due(store, 1e9) == []


async def test_due_tasks_of_limited_nodes_are_held_in_their_slots(store: Store) -> None:
    delayed = [
        task("r", f"0.{n}", node=node, inputs=inputs, status=TaskStatus.HELD, held_for="delay", due=1010.0 + n)
        for n, (node, inputs) in enumerate([("n", b'{"k":1}'), ("n", b'{"x":1}'), ("free", b"{}"), ("n", b'{"k":2}')])
    ]
    await hold(store, *delayed)
    limits = {"n": NodeLimit(limit=1, key="k")}
    released = await store.transact(lambda tx: tx.release_due(1012.0, 9, limits))
    assert ([one.task_id for one in released.tasks], released.slots, released.count) == (
        [delayed[2].id], {"n k=1"}, 3)  # fmt: skip
    (failure,) = released.failures
    assert (failure.task_id, failure.error.type) == (delayed[1].id, "MissingKey")
    assert [(row.held_for, row.slot, row.due) for row in await loaded(store, *delayed)] == [
        ("limit", "n k=1", None), ("delay", None, 1011.0), (None, None, None), ("delay", None, 1013.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "limits"),
    [
        ({"limit": 3}, {"n": NodeLimit(limit=3)}),
        ({"rate": "5/min", "key": "k"}, {"n": NodeLimit(rate="5/min", key="k")}),
        ({"timeout": 5}, {}),
    ],
)
async def test_limits_are_those_that_were_announced_last(
    store: Store, told: dict[str, object], limits: dict[str, NodeLimit]
) -> None:
    for nodes in ([{"name": "n", "limit": 1}, {"name": "other"}], [{"name": "n", **told}]):
        worker = wire.Worker.model_validate({"worker": "w", "nodes": nodes})
        await store.transact(lambda tx, worker=worker: tx.record_workers([worker], 1000.0))
    assert await store.transact(lambda tx: tx.node_limits()) == limits


async def test_pausing_holds_what_its_slot_held_and_resuming_gives_it_back(store: Store) -> None:
    limited, free = held("0.0"), task("r", "0.1", status=TaskStatus.QUEUED)
    await hold(store, limited, free)
    await write(store, [c.MoveRun("r", RunStatus.PAUSED), c.HoldUnsent("r", "paused")])
    assert await admit(store, {}) == []
    assert {row.held_for for row in await loaded(store, limited, free)} == {"paused"}
    await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Unhold("r", "paused")])
    rows = await loaded(store, limited, free)
    assert [(row.status, row.held_for) for row in rows] == [(TaskStatus.HELD, "limit"), (TaskStatus.QUEUED, None)]


async def test_pausing_leaves_what_may_be_on_its_way_in_its_slot(store: Store) -> None:
    out, waits = held("0.0", created_at=1.0), held("0.1")
    await hold(store, out, waits)
    one = {"n": NodeLimit(limit=1)}
    assert await admit(store, one) == ["0.0"]
    await write(store, [c.MoveRun("r", RunStatus.PAUSED), c.HoldUnsent("r", "paused")])
    assert [(row.status, row.held_for) for row in await loaded(store, out, waits)] == [
        (TaskStatus.QUEUED, None), (TaskStatus.HELD, "paused")]  # fmt: skip
    assert await store.transact(lambda tx: tx.unsent(before=1e9, limit=9)) == [], "nothing of a paused run is sent"
    _, others = begun("other", status=TaskStatus.HELD, held_for="limit", node="n", slot="n")
    await write(store, others)
    assert await admit(store, one) == [], "a worker may have it"
    await store.transact(lambda tx: tx.mark_sent([("r", out.id, 1)], 1001.0))
    await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Unhold("r", "paused")])
    assert [(row.status, row.held_for, row.sent_at) for row in await loaded(store, out, waits)] == [
        (TaskStatus.QUEUED, None, 1001.0), (TaskStatus.HELD, "limit", None)]  # fmt: skip


async def test_what_was_never_sent_is_sent_when_its_run_goes_on(store: Store) -> None:
    out = held("0.0")
    await hold(store, out)
    await admit(store, TWO)
    await write(store, [c.MoveRun("r", RunStatus.PAUSED), c.HoldUnsent("r", "paused")])
    await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Unhold("r", "paused")])
    unsent = await store.transact(lambda tx: tx.unsent(before=1e9, limit=9))
    assert out.id in {one.task_id for one in unsent}


async def test_nothing_of_a_paused_run_is_let_out_until_it_goes_on(store: Store) -> None:
    """It became held for its limit while another coordinator paused the run."""
    raced = held("0.0")
    await hold(store, raced)
    await write(store, [c.MoveRun("r", RunStatus.PAUSED)])
    assert await admit(store, TWO) == []
    assert await admit(store, {}) == []
    await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Unhold("r", "paused")])
    assert await admit(store, TWO) == ["0.0"]


async def test_a_delayed_task_that_is_released_while_its_run_is_paused_stays(postgres_database: str) -> None:
    """One coordinator releases it, and another one pauses its run before the first one admits tasks to the slot."""
    timers, commands = [await open_store(postgres_database) for _ in range(2)]
    delayed = task("r", "0.0", node="n", status=TaskStatus.HELD, held_for="delay", due=1.0)
    await hold(timers, delayed)
    loop = asyncio.get_running_loop()
    pause = [c.MoveRun("r", RunStatus.PAUSED), c.HoldUnsent("r", "paused")]

    def release(transaction: Transaction) -> list[tuple[str, UUID]]:
        released = transaction.release_due(transaction.now(), 9, TWO)
        assert released.slots == {"n"}
        asyncio.run_coroutine_threadsafe(write(commands, pause), loop).result()
        return transaction.admit(released.slots, TWO).tasks

    assert await timers.transact(release) == []
    assert await admit(timers, TWO) == []
    await write(commands, [c.MoveRun("r", RunStatus.RUNNING), c.Unhold("r", "paused")])
    assert await admit(timers, TWO) == ["0.0"]
    for opened in (timers, commands):
        await opened.close()


async def test_a_run_that_is_opened_again_holds_its_limited_tasks(store: Store) -> None:
    limited, free = held("0.0"), task("r", "0.1")
    await hold(store, limited, free)
    await admit(store, {})
    failed = c.EndRun(run_id="r", status=RunStatus.FAILED, ended_at=1001.0)
    await write(store, [failed, c.CancelBelow("r", "", None, 1001.0)])
    await write(store, [c.MoveRun("r", RunStatus.RUNNING), c.Reopen("r", 1002.0)])
    rows = await loaded(store, limited, free)
    assert [(row.status, row.held_for, row.attempt) for row in rows] == [
        (TaskStatus.HELD, "limit", 2), (TaskStatus.QUEUED, None, 2)]  # fmt: skip


async def test_a_copied_task_counts_in_the_slot_of_its_inputs(store: Store) -> None:
    root, changes = begun("old", node="n", slot="n k=1", status=TaskStatus.HELD, held_for="limit")
    ended = c.EndRun(run_id="old", status=RunStatus.FAILED, ended_at=1001.0)
    await write(store, [*changes, settled(root, TaskStatus.FAILED, outputs=None), ended])
    for run_id, inputs, slot in (("same", None, None), ("other", b'{"k":2}', "n k=2")):
        (_, (added, *_)) = begun(run_id)
        copied = c.CopyRun(run_id=run_id, source="old", task_id=None, inputs=inputs, slot=slot, at=1002.0, secret=b"s")
        await write(store, [replace(added, run=added.run._replace(status=RunStatus.RUNNING)), copied])
        await write(store, [c.Reopen(run_id, 1002.0)])
    slots = await store.query(lambda q: [(row.slot, row.held_for) for r in ("same", "other") for row in q.tasks(r)])
    assert slots == [("n k=1", "limit"), ("n k=2", "limit")]


async def due(store: Store, now: float) -> Iterable[str]:
    return await store.transact(lambda tx: tx.slots_due(now, 9))

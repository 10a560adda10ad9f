"""Two coordinators on one PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from uuid import uuid4

import psycopg
import pytest

from flowkit.coordinator import retention
from flowkit.coordinator.commit import REFILLS, commit, refills
from flowkit.coordinator.ledger import Ledger
from flowkit.errors import StoreUnreachable
from flowkit.flow import changes as c
from flowkit.flow.events import Commanded, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import Keys, Run, RunStatus, Scope, Task, TaskStatus
from flowkit.store import Store, open_store
from flowkit.store.protocol import Transaction
from flowkit.wire import messages as wire


@pytest.fixture
async def two(postgres_database: str):
    stores = [await open_store(postgres_database) for _ in range(2)]
    yield stores
    for store in stores:
        await store.close()


def begin(run_id: str) -> tuple[Task, list[c.Change]]:
    root = Task(run_id=run_id, id=uuid4(), path="0", scope="", node="n", inputs=b"{}", created_at=1.0)
    run = Run(id=run_id, node="n", started_at=1.0, tasks=1)
    return root, [c.AddRun(run), c.AddScope(Scope(run_id=run_id, path="", parent=None, outstanding=1)), c.AddTask(root)]


async def test_a_run_is_locked_until_the_other_one_is_done(two: list[Store]) -> None:
    """Both count up what they load, 40 times each, over runs named in opposite orders: none is lost."""
    runs = [f"r{n}" for n in range(5)]
    for run_id in runs:
        await two[0].transact(lambda tx, r=run_id: tx.write(begin(r)[1]))

    def count_up(tx: Transaction) -> None:
        state = tx.load(Keys(frozenset(runs), frozenset(), frozenset(), frozenset()))
        tx.write([c.CountTasks(run_id=run.id, tasks=run.tasks + 1) for run in state.runs.values()])

    async def work(store: Store) -> None:
        for _ in range(40):
            await store.transact(count_up)

    await asyncio.gather(*map(work, two))
    found, _ = await two[0].query(lambda q: q.runs(limit=9))
    assert [run.tasks for run in found] == [81] * 5


async def test_one_that_stands_still_in_a_transaction_does_not_hold_up_the_other(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that is stopped, or whose machine loses its network, while it holds the locks of a run."""
    monkeypatch.setattr("flowkit.store.postgres.IDLE", 1)
    stopped, store = [await open_store(postgres_database) for _ in range(2)]
    await store.transact(lambda tx: tx.write(begin("r")[1]))
    locked, go_on = threading.Event(), threading.Event()

    def count_up(tx: Transaction) -> None:
        run = tx.load(Keys(frozenset({"r"}), frozenset(), frozenset(), frozenset())).runs["r"]
        locked.set()
        if not go_on.is_set():
            go_on.wait(20)
        tx.write([c.CountTasks(run_id="r", tasks=run.tasks + 1)])

    standing = asyncio.create_task(stopped.transact(count_up))
    await asyncio.to_thread(locked.wait)
    try:
        async with asyncio.timeout(10):
            await store.transact(lambda tx: tx.load(Keys(frozenset({"r"}), frozenset(), frozenset(), frozenset())))
    finally:
        go_on.set()
    with pytest.raises(StoreUnreachable):
        await standing
    await stopped.transact(count_up)  # and it is back
    found, _ = await store.query(lambda q: q.runs(limit=9))
    assert [run.tasks for run in found] == [2]
    for one in (stopped, store):
        await one.close()


async def test_no_mark_is_written_behind_a_refill_that_it_had_to_wait_for(
    two: list[Store], postgres_database: str
) -> None:
    """The broker was wiped: one of them has all sent again, the other has a mark of what was confirmed before."""
    refilling, marking = two[0], Ledger(two[1], Limits(), b"secret", marks_after=0)
    starts = [Started(run_id, wire.Start(node="n", run_id=run_id)) for run_id in ("answered", "lost")]
    answered, lost = (await marking.commit(starts)).tasks
    await two[1].transact(lambda tx: tx.set_meta(REFILLS, "0"))
    marking.mark_sent([lost.mark], marking.epoch)
    unsent, waited_for = threading.Event(), threading.Event()

    def refill(tx: Transaction) -> None:
        tx.unsend_all()
        unsent.set()
        waited_for.wait(20)
        tx.set_meta(REFILLS, str(refills(tx) + 1))

    refilled = asyncio.create_task(refilling.transact(refill))
    await asyncio.to_thread(unsent.wait)
    result = wire.Result(task_id=answered.task_id, run_id="answered")
    committed = asyncio.create_task(marking.commit([Reported(result)]))
    await asyncio.to_thread(_somebody_waits, postgres_database)
    waited_for.set()
    await asyncio.gather(refilled, committed)
    unsent_tasks = await refilling.transact(lambda tx: tx.unsent(before=math.inf, limit=9))
    assert [task.run_id for task in unsent_tasks] == ["lost"]
    assert marking.epoch == 1


def _somebody_waits(url: str) -> None:
    """Return when a transaction waits for another one's lock."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(waits).fetchone() is None:
            connection.execute("SELECT pg_sleep(0.01)")


async def test_both_add_the_same_run(two: list[Store]) -> None:
    """The second one finds it there when it tries again."""
    both_looked = threading.Barrier(2)
    tries = []

    def start(tx: Transaction) -> str:
        tries.append(1)
        if tx.load(Keys(frozenset({"r"}), frozenset(), frozenset(), frozenset())).runs:
            return "there"
        both_looked.wait(5)
        tx.write(begin("r")[1])
        return "added"

    assert sorted(await asyncio.gather(*(store.transact(start) for store in two))) == ["added", "there"]
    assert len(tries) == 3


async def test_marking_what_the_other_one_settles_is_no_deadlock(two: list[Store]) -> None:
    """Each settles its own run's task, and then marks the other one's as sent."""
    tasks = []
    for run_id in ("a", "b"):
        root, changes = begin(run_id)
        await two[0].transact(lambda tx, ch=changes: tx.write(ch))
        tasks.append(root)
    both_settled = threading.Barrier(2)
    tries = []

    def settle(mine: Task, other: Task):
        def work(tx: Transaction) -> None:
            tries.append(1)
            tx.load(Keys(frozenset({mine.run_id}), frozenset(), frozenset(), frozenset()))
            tx.write([c.SettleTask(run_id=mine.run_id, task_id=mine.id, status=TaskStatus.SUCCEEDED, attempt=1)])
            both_settled.wait(5)
            tx.mark_sent([(other.run_id, other.id, 1)], 5.0)
            both_settled.wait(5)

        return work

    await asyncio.gather(two[0].transact(settle(*tasks)), two[1].transact(settle(*tasks[::-1])))
    assert len(tries) == 2


async def test_a_deadlock_is_tried_again(two: list[Store]) -> None:
    for key in ("a", "b"):
        await two[0].transact(lambda tx, k=key: tx.set_meta(k, "0"))
    first_try = threading.Barrier(2)
    tries = []

    def cross(first: str, second: str):
        def work(tx: Transaction) -> None:
            tries.append(1)
            tx.set_meta(first, "1")
            if len(tries) <= 2:
                first_try.wait(5)
            tx.set_meta(second, "1")

        return work

    await asyncio.gather(two[0].transact(cross("a", "b")), two[1].transact(cross("b", "a")))
    assert len(tries) == 3


async def test_two_relays_share_what_is_unsent(two: list[Store]) -> None:
    def many(tx: Transaction) -> None:
        tx.write([change for n in range(300) for change in begin(f"r{n}")[1]])

    await two[0].transact(many)
    both_took = threading.Barrier(2)

    def take(tx: Transaction) -> list[str]:
        taken = [task.run_id for task in tx.unsent(before=math.inf, limit=150)]
        both_took.wait(5)
        return taken

    one, other = await asyncio.gather(*(store.transact(take) for store in two))
    assert (len(one), len(other), len({*one, *other})) == (150, 150, 300)


async def test_only_one_ends_what_has_expired(two: list[Store]) -> None:
    """Each takes runs that the other one has not locked, whichever timers they are found by."""

    def many(tx: Transaction) -> None:
        for n in range(20):
            _, changes = begin(f"r{n}")
            waiting = Task(run_id=f"r{n}", id=uuid4(), path="0.0", scope="", node="n", status=TaskStatus.WAITING,
                           signal="ok", due=5.0, inputs=b"{}", created_at=1.0)  # fmt: skip
            gather = Scope(run_id=f"r{n}", path="0.1", parent="", outstanding=1, due=4.0)
            tx.write([*changes, c.AddTask(waiting), c.AddScope(gather)])

    await two[0].transact(many)
    both_took = threading.Barrier(2)

    def take(tx: Transaction) -> list[str]:
        taken = [event.run_id for event in tx.expired(10.0, 10)]
        both_took.wait(5)
        tx.load(Keys(frozenset(taken), frozenset(), frozenset(), frozenset()))
        return taken

    one, other = await asyncio.gather(*(store.transact(take) for store in two))
    assert (len(one), len(other), len({*one, *other})) == (10, 10, 20)


async def test_recount_while_others_work(two: list[Store]) -> None:
    """A counter is only corrected when it is wrong under the lock of its run."""
    root, changes = begin("r")
    await two[0].transact(lambda tx: tx.write(changes))
    written, go_on = threading.Event(), threading.Event()

    def add(tx: Transaction) -> None:
        tx.load(Keys(frozenset({"r"}), frozenset(), frozenset(), frozenset()))
        child = Task(run_id="r", id=uuid4(), path="0.0", scope="", node="n", inputs=b"{}", created_at=1.0)
        moved = c.MoveScope(run_id="r", path="", outstanding=2, status=c.ScopeStatus.OPEN)
        tx.write([c.AddTask(child), moved])
        written.set()
        go_on.wait(5)

    async def recount() -> int:
        await asyncio.to_thread(written.wait, 5)
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        return await two[1].transact(lambda tx: tx.recount())

    _, wrong = await asyncio.gather(two[0].transact(add), recount())
    assert wrong == 0
    assert root.id
    assert await two[1].transact(lambda tx: tx.recount()) == 0


async def test_both_forget_what_is_old_while_some_of_it_is_taken_up_again(
    two: list[Store], postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is gone with all its rows, or goes on with all of them; whoever looks sees no half of one."""
    monkeypatch.setattr(retention, "ROWS", 7)
    monkeypatch.setattr(retention, "PAUSE", 0)
    runs, size = [f"r{number:02}" for number in range(60)], 10
    for number, run_id in enumerate(runs):
        root, changes = begin(run_id)
        rest = [root._replace(id=uuid4(), path=f"0.{place}") for place in range(size - 1)]
        failed = [c.SettleTask(run_id=run_id, task_id=one.id, status=TaskStatus.FAILED, attempt=1) for one in rest]
        over = c.EndRun(run_id=run_id, status=RunStatus.FAILED, ended_at=2.0 + number)
        written = [*changes, *map(c.AddTask, rest), *failed, over]
        await two[0].transact(lambda tx, of_run=written: tx.write(of_run))
    lines = [wire.Log(ts=1.0, level="INFO", message="m", run_id=run_id, worker="w", seq=n)
             for n, run_id in enumerate([*runs, *["nobody"] * 100])]  # fmt: skip
    await two[0].transact(lambda tx: tx.archive(lines, 1))

    third = await open_store(postgres_database)

    async def retry() -> None:
        for run_id in runs[::-2]:
            command = Commanded(wire.Command(id=uuid4(), kind="retry", run_id=run_id))
            await third.transact(lambda tx, one=command: commit(tx, [one], secret=b"", limits=Limits()))
            rows = await third.query(lambda q, one=run_id: len(q.tasks(one)) if q.run(one) else 0)
            assert rows in (0, size)

    try:
        keep = time.time() - 1_000_000
        await asyncio.gather(*(retention.Retention(store, keep=keep, every=1).sweep() for store in two), retry())
        await retention.Retention(two[0], keep=keep, every=1).sweep()  # what somebody had locked comes later
        left, _ = await third.query(lambda q: q.runs(limit=99))
        assert {run.status for run in left} <= {"running"}
        assert [len(await third.query(lambda q, one=run_id: q.tasks(one))) for run_id in runs] == [
            size * (run_id in {run.id for run in left}) for run_id in runs
        ]
        kept = await third.query(lambda q: q.logs(limit=999))
        assert sorted(line.run_id for line in kept) == sorted(run.id for run in left)
    finally:
        await third.close()

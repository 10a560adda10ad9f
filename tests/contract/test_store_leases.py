"""Leases in the tables: looked up, granted, renewed, over, and left alone by what sends tasks again."""

from __future__ import annotations

import math
from dataclasses import replace
from uuid import uuid4

from flowkit.flow import changes as c
from flowkit.flow import events as e
from flowkit.flow.leases import Known, Lease
from flowkit.flow.state import Keys, Run, RunStatus, Scope, Task, TaskStatus
from flowkit.store import Store, open_store
from flowkit.store.attempt import attempt
from flowkit.store.transaction import SqlTransaction
from tests.contract.stores import NUL, begun, loaded, settled, task, write


def lease_of(of: Task, **fields: object) -> Lease:
    given = {"worker": "w1", "until": 1100.0, "sent_at": 1001.0, "started_at": 1002.0, "first_started_at": 1002.0}
    return Lease(run_id=of.run_id, task_id=of.id, attempt=of.attempt, **(given | fields))


async def lease(store: Store, *leases: Lease) -> list[Lease]:
    return await store.transact(lambda tx: tx.lease(leases))


async def over(store: Store, now: float, limit: int = 9) -> list[e.LeaseExpired]:
    return await store.transact(lambda tx: tx.expired_leases(now, limit))


async def test_announced_tasks_are_known_with_their_runs(store: Store) -> None:
    root, changes = begun()
    other = task("r", "0.1", status=TaskStatus.HELD, attempt=3, created_at=1005.0)
    await write(store, [*changes, c.AddTask(other)])
    await store.transact(lambda tx: tx.mark_sent([("r", root.id, 1)], 1001.0))
    wanted = [("r", root.id), ("r", other.id), ("r", root.id), ("r", uuid4()), ("none", root.id)]
    known = await store.transact(lambda tx: tx.known(wanted))
    first = Known(status=TaskStatus.QUEUED, attempt=1, created_at=1000.0, run=RunStatus.RUNNING, sent_at=1001.0)
    second = Known(status=TaskStatus.HELD, attempt=3, created_at=1005.0, run=RunStatus.RUNNING)
    assert known == {("r", root.id): first, ("r", other.id): second}
    assert await store.transact(lambda tx: tx.known([])) == {}
    ended = c.EndRun(run_id="r", status=RunStatus.CANCELLED, ended_at=1006.0, grace_until=1036.0)
    await write(store, [ended, c.CancelBelow("r", "", None, 1006.0)])
    known = await store.transact(lambda tx: tx.known(wanted[:1]))
    gone = replace(first, status=TaskStatus.CANCELLED, run=RunStatus.CANCELLED, grace_until=1036.0)
    assert known == {("r", root.id): gone}


async def test_leases_from_before_a_clock_was_set_back_are_shortened(store: Store) -> None:
    root, changes = begun()
    other = task("r", "0.1")
    await write(store, [*changes, c.AddTask(other)])
    await lease(store, lease_of(root, until=4600.0), lease_of(other, until=1150.0))
    await store.transact(lambda tx: tx.shorten_leases(1090.0))
    assert [row.leased_until for row in await loaded(store, root, other)] == [1090.0, 1150.0]


async def test_a_lease_is_granted_and_renewed(store: Store) -> None:
    root, changes = begun()
    other = task("r", "0.1")
    await write(store, [*changes, c.AddTask(other)])
    granted = [lease_of(root, worker=NUL), lease_of(other)]
    assert await lease(store, *granted) == granted
    [row] = await loaded(store, root)
    assert (row.status, row.worker, row.leased_until) == (TaskStatus.RUNNING, NUL, 1100.0)
    assert (row.sent_at, row.started_at, row.first_started_at) == (1001.0, 1002.0, 1002.0)
    renewed = lease_of(root, until=1200.0)
    assert await lease(store, renewed) == [renewed]
    assert (await loaded(store, root))[0].leased_until == 1200.0
    shown = {row.id: row.leased_until for row in await store.query(lambda q: q.tasks("r"))}
    assert shown == {root.id: 1200.0, other.id: 1100.0}
    assert await lease(store) == []


async def test_only_what_is_out_at_that_attempt_is_leased(store: Store) -> None:
    root, changes = begun(attempt=2)
    done, held = task("r", "0.1"), task("r", "0.2", status=TaskStatus.HELD)
    await write(store, [*changes, c.AddTask(done), c.AddTask(held), settled(done)])
    refused = [replace(lease_of(root), attempt=1), lease_of(done), lease_of(held), lease_of(task("r"))]
    assert await lease(store, *refused) == []
    rows = await loaded(store, root, done, held)
    assert [row.leased_until for row in rows] == [None, None, None]
    mine, same = lease_of(root), lease_of(root, worker="w2")
    assert len(await lease(store, mine, same)) == 2, "two workers have it, and the lease is the task's"


async def test_leases_that_are_over_are_found_once_their_time_has_come(store: Store) -> None:
    root, changes = begun()
    later, done = task("r", "0.1"), task("r", "0.2")
    await write(store, [*changes, c.AddTask(later), c.AddTask(done)])
    await lease(store, lease_of(root), lease_of(later, until=1150.0), lease_of(done))
    await write(store, [settled(done)])
    assert await over(store, 1099.9) == []
    assert await over(store, 1100.0) == [e.LeaseExpired("r", root.id)]
    both = [e.LeaseExpired("r", root.id), e.LeaseExpired("r", later.id)]
    assert await over(store, 1150.0) == both
    assert await over(store, 1150.0, 1) == both[:1]
    await write(store, [c.MoveRun("r", RunStatus.PAUSED)])
    assert await over(store, 1150.0) == both, "a process that dies in a paused run is dead too"
    again = c.MoveTask(run_id="r", task_id=root.id, status=TaskStatus.QUEUED, attempt=2, tries=1, deaths=1)
    await write(store, [again])
    assert await over(store, 1150.0) == both[1:]
    await write(store, [c.CancelBelow("r", "0.1", None, 1160.0)])
    assert await over(store, 1e9) == []
    assert (await loaded(store, later))[0].leased_until is None


async def test_a_gathers_timeout_ends_leases(store: Store) -> None:
    root, changes = begun()
    branch = task("r", "0.0.0", scope="0.0")
    gather = Scope(run_id="r", path="0.0", parent="", opener=root.id, outstanding=1, return_exceptions=True)
    await write(store, [*changes, c.AddScope(gather), c.AddTask(branch)])
    await lease(store, lease_of(branch))
    await write(store, [c.FailOutstanding("r", "0.0", b"{}", 1020.0)])
    assert (await loaded(store, branch))[0].leased_until is None
    assert await over(store, 1e9) == []


async def test_leased_tasks_are_not_sent_again_but_by_their_silence(store: Store) -> None:
    root, changes = begun()
    other = task("r", "0.1")
    await write(store, [*changes, c.AddTask(other)])
    await store.transact(lambda tx: tx.mark_sent([("r", root.id, 1), ("r", other.id, 1)], 1001.0))
    both = await store.transact(lambda tx: tx.sent_before(1e9, 9))
    await lease(store, lease_of(root))
    found = await store.transact(lambda tx: tx.sent_before(1e9, 9))
    assert [one.task_id for one in found] == [other.id]
    assert await store.transact(lambda tx: tx.unsend(both)) == 1, "leased between two looks"
    await store.transact(lambda tx: tx.mark_sent([("r", other.id, 1)], 1002.0))
    assert await store.transact(lambda tx: tx.unsend_all()) == 1, "the broker was wiped"
    assert [one.task_id for one in await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9))] == [other.id]
    assert (await loaded(store, root))[0].leased_until == 1100.0


async def test_a_lease_counts_as_sent_although_the_mark_was_lost(store: Store) -> None:
    root, changes = begun()
    await write(store, changes)
    await lease(store, lease_of(root))
    assert await store.transact(lambda tx: tx.unsent(before=math.inf, limit=9)) == []


async def test_rows_that_another_coordinator_works_on_are_left_alone(postgres_database: str) -> None:
    first, second = await open_store(postgres_database), await open_store(postgres_database)
    try:
        root, changes = begun()
        await write(first, changes)
        other, more = begun("s")
        await write(first, more)
        await lease(first, lease_of(other))

        def meanwhile(tx):
            tx.write([c.MoveTask(run_id="r", task_id=root.id, status=TaskStatus.RUNNING, attempt=1, tries=1)])
            tx.load(Keys(frozenset({"s"}), frozenset(), frozenset(), frozenset()))
            granted = attempt(second._database, lambda db: SqlTransaction(db).lease([lease_of(root)]))
            return granted, attempt(second._database, lambda db: SqlTransaction(db).expired_leases(1e9, 9))

        assert await first.transact(meanwhile) == ([], [])
        assert await lease(second, lease_of(root)) == [lease_of(root)]
        assert len(await over(second, 1e9)) == 2
    finally:
        await first.close()
        await second.close()


async def test_what_was_sent_is_found_page_by_page(store: Store) -> None:
    """Runs and scopes in any order, and more rows than a page has: each is found once."""
    added: list[c.Change] = []
    for run_id in ("r2", "r1", "r3"):
        added.append(c.AddRun(Run(id=run_id, node="a", started_at=1.0)))
        added += [c.AddTask(task(run_id, f"0.{n}", scope=("", "0.1", "0.10")[n % 3], sent_at=5.0)) for n in range(7)]
    await write(store, added)
    found, page = [], await store.transact(lambda tx: tx.sent_before(6.0, 4))
    while page:
        found += page
        page = await store.transact(lambda tx, last=page[-1]: tx.sent_before(6.0, 4, after=last))
    assert sorted(one.task_id for one in found) == sorted(one.task.id for one in added if isinstance(one, c.AddTask))
    assert [(one.run_id, one.scope) for one in found] == sorted((one.run_id, one.scope) for one in found)
    assert await store.transact(lambda tx: (tx.nodes_sent(6.0), tx.nodes_sent(5.0))) == (["add"], [])

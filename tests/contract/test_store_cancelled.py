"""Cancelled attempts of limited nodes in the tables: what counts, what is listed, and until when."""

from __future__ import annotations

import asyncio
import threading
from uuid import UUID

import pytest

from flowkit.flow import changes as c
from flowkit.flow import events as e
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import Task, TaskStatus
from flowkit.store import Store, open_store
from flowkit.store.protocol import CancelledAttempt, Transaction
from flowkit.store.views import SlotCount
from tests.contract.stores import begun, task, write
from tests.contract.test_store_limits import admit, held, hold

ONE = {"n": NodeLimit(limit=1)}
AT = 1001.0


def listed(events: list[e.Event]) -> list[tuple[UUID, int]]:
    return [attempt for event in events if isinstance(event, e.AttemptsCancelled) for attempt in event.attempts]


async def unheard(store: Store, before: float = 1e12) -> list[CancelledAttempt]:
    return await store.transact(lambda tx: tx.unheard_attempts(before, 10))


async def out(store: Store) -> SlotCount | None:
    return (await store.query(lambda q: q.slots(["n"]))).get("n")


async def some_tasks(store: Store) -> tuple[Task, ...]:
    """Of a limited node one that is queued, one that runs and one that is held; and one of another node."""
    queued, running, waits, other = (
        held("0.0", created_at=1.0),
        held("0.1", created_at=2.0),
        held("0.2"),
        task("r", "1"),
    )
    await hold(store, queued, running, waits, other)
    assert await admit(store, {"n": NodeLimit(limit=2)}) == ["0.0", "0.1"]
    runs = c.MoveTask(run_id="r", task_id=running.id, status=TaskStatus.RUNNING, attempt=3, tries=1, sent_at=1.0)
    await write(store, [runs])
    return queued, running, waits, other


async def test_what_was_out_counts_and_is_listed_and_what_was_held_is_not(store: Store) -> None:
    queued, running, _, _ = await some_tasks(store)
    events = await write(store, [c.CancelBelow("r", "", None, AT, 30)])
    assert listed(events) == [(queued.id, 1), (running.id, 3)], "all workers hear of the run: only limited nodes are"
    assert [event.grace for event in events if isinstance(event, e.AttemptsCancelled)] == [30]
    assert await out(store) == SlotCount(out=2, held=0, ending=2)
    assert await store.query(lambda q: q.cancelled_attempts()) == 2


async def test_all_that_are_out_are_listed_when_the_run_goes_on(store: Store) -> None:
    queued, running, _, _ = await some_tasks(store)
    events = await write(store, [c.CancelBelow("r", "0", "", AT)])
    assert {(queued.id, 1), (running.id, 3)} < set(listed(events))
    assert len(listed(events)) == 3, "the first task of the run too, which has no limit; not what is beside the path"


async def test_the_branches_that_a_timeout_fails_and_what_is_below_them(store: Store) -> None:
    queued, running, _, other = await some_tasks(store)
    events = await write(store, [c.FailOutstanding("r", "", b'{"type":"TimeoutError"}', AT)])
    assert {(queued.id, 1), (running.id, 3), (other.id, 1)} <= set(listed(events))
    assert await out(store) == SlotCount(out=2, held=0, ending=2)


async def test_no_other_task_goes_out_until_the_attempt_has_ended(store: Store) -> None:
    mine = held("0.0")
    await hold(store, mine)
    await admit(store, ONE)
    await write(store, [c.CancelBelow("r", "", None, AT)])
    _, changes = begun("next", node="n", slot="n", status=TaskStatus.HELD, held_for="limit")
    await write(store, changes)
    assert (await store.transact(lambda tx: tx.admit(["n"], ONE))).tasks == []
    await write(store, [c.FreeSlot("r", mine.id, 2)])
    assert (await store.transact(lambda tx: tx.admit(["n"], ONE))).tasks == [], "another attempt has"
    await write(store, [c.FreeSlot("r", mine.id, 1)])
    assert [run_id for run_id, _ in (await store.transact(lambda tx: tx.admit(["n"], ONE))).tasks] == ["next"]


async def test_an_answer_without_an_attempt_frees_all_of_its_task(store: Store) -> None:
    mine, other = held("0.0"), held("0.1")
    await hold(store, mine, other)
    holding = [c.HoldSlot("r", one.id, attempt, "n", AT) for one in (mine, other) for attempt in (1, 2)]
    await write(store, [*holding, holding[0]])
    await write(store, [c.FreeSlot("r", mine.id, None)])
    assert {(one.task_id, one.attempt) for one in await unheard(store)} == {(other.id, 1), (other.id, 2)}


async def test_an_attempt_that_ends_in_the_batch_that_cancels_it_does_not_count(store: Store) -> None:
    mine = held("0.0")
    await hold(store, mine)
    await admit(store, ONE)
    await write(store, [c.CancelBelow("r", "", None, AT), c.FreeSlot("r", mine.id, 1)])
    assert await unheard(store) == []


async def test_what_is_announced_counts_and_what_is_not_is_given_up(store: Store) -> None:
    mine = held("0.0")
    await hold(store, mine)
    now = await store.transact(lambda tx: tx.now())
    await write(store, [c.HoldSlot("r", mine.id, 1, "n", now - 100), c.HoldSlot("r", mine.id, 2, "n", now + 3600)])
    old, ahead = await unheard(store, now - 90)
    assert (old.attempt, ahead.attempt, old.slot) == (1, 2, "n"), "what is dated ahead was written by another clock"
    keys = [("r", mine.id, attempt) for attempt in (1, 2, 3)]
    await store.transact(lambda tx: tx.note_heard(keys, now - 30))
    assert await unheard(store, now - 90) == []
    await store.transact(lambda tx: tx.give_up([old, ahead]))
    assert len(await unheard(store)) == 2, "they were heard of meanwhile"
    await store.transact(lambda tx: tx.note_heard(keys, now - 30))
    found = await unheard(store)
    assert await store.transact(lambda tx: tx.give_up(found[:1])) is None
    assert await unheard(store) == found[1:]


async def test_they_are_listed_page_by_page_with_the_tries_of_their_tasks(store: Store) -> None:
    mine, other = held("0.0"), held("0.1")
    await hold(store, mine, other)
    removed = UUID(int=7)
    rows = [(mine.id, 1, 3.0), (mine.id, 2, 1.0), (other.id, 1, 1.0), (other.id, 2, 1.0), (removed, 1, 2.0)]
    await write(store, [c.HoldSlot("r", task_id, attempt, "n", at) for task_id, attempt, at in rows])
    found: list[CancelledAttempt] = []
    for expected in (2, 2, 1, 0):
        after = found[-1] if found else None
        page = await store.transact(lambda tx, after=after: tx.unheard_attempts(1e12, 2, after=after))  # type: ignore[misc]
        assert len(page) == expected
        found += page
    assert {(one.task_id, one.attempt, one.heard_at) for one in found} == set(rows)
    assert [one.heard_at for one in found] == sorted(one.heard_at for one in found)
    known = {(mine.id, 1): 1, (other.id, 1): 1}
    assert {(one.task_id, one.attempt): one.tries for one in found if one.tries is not None} == known


@pytest.mark.parametrize("commits", [True, False])
async def test_a_task_that_another_transaction_lets_out_at_that_moment(postgres_database: str, commits: bool) -> None:
    """It is cancelled as one that is out, or as one that is held: never sent and not counted."""
    one, other = [await open_store(postgres_database) for _ in range(2)]
    mine = held("0.0")
    await hold(one, mine)
    admitted, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def let_out(transaction: Transaction) -> None:
        assert len(transaction.admit(["n"], ONE).tasks) == 1
        loop.call_soon_threadsafe(admitted.set)
        assert go_on.wait(10)
        if not commits:
            raise KeyError("rolled back")

    letting = asyncio.create_task(one.transact(let_out))
    await admitted.wait()
    cancelling = asyncio.create_task(write(other, [c.CancelBelow("r", "", None, AT)]))
    await asyncio.wait([cancelling], timeout=0.3)  # it waits for the row
    assert not cancelling.done()
    go_on.set()
    await asyncio.wait([letting])
    assert (letting.exception() is None) is commits
    events = await cancelling
    assert listed(events) == ([(mine.id, 1)] if commits else [])
    assert len(await unheard(other)) == commits
    for opened in (one, other):
        await opened.close()

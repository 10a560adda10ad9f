"""Marks of tasks that were sent: written once nobody has answered for a while, and never lost."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from flowkit.coordinator.commit import REFILLS
from flowkit.coordinator.ledger import Ledger
from flowkit.errors import StoreUnreachable
from flowkit.flow.events import Commanded, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.store import Inline, Store, open_store
from flowkit.store.protocol import Sendable, Transaction
from flowkit.wire import messages as wire


@pytest.fixture
async def store():
    opened = await open_store("sqlite://", executor=Inline())
    yield opened
    await opened.close()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction is a large one."""
    monkeypatch.setattr("flowkit.coordinator.ledger.BUSY", -1)


class Away:
    """A store that is away: from everybody, or from one transaction."""

    def __init__(self, *, only: object = None) -> None:
        self.away, self.only, self.tries = True, only, asyncio.Semaphore(0)

    async def transact(self, work: object) -> object:
        if self.away and self.only in (None, work):
            self.tries.release()
            raise StoreUnreachable("postgresql://", "cut")
        return work


async def begun(ledger: Ledger) -> Sendable:
    """A task that was sent and confirmed."""
    [task] = (await ledger.commit([Started("r", wire.Start(node="n", run_id="r"))])).tasks
    ledger.mark_sent([task.mark], ledger.epoch)
    return task


async def sent(store: Store, task_id: UUID) -> bool:
    """Whether its row says so."""
    rows = await store.query(lambda queries: queries.tasks("r"))
    return next(row for row in rows if row.id == task_id).sent_at is not None


async def test_a_mark_goes_along_with_the_next_small_batch(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)
    await ledger.commit(())
    assert await sent(store, task.task_id)


async def test_a_mark_waits_for_its_time_and_then_goes_along(store: Store, busy: None) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)
    await ledger.commit(())
    assert not await sent(store, task.task_id)
    assert ledger.unwritten() == {task.mark}, "the relay must not send it again"
    ledger._marks_after = 0
    await ledger.commit(())
    assert await sent(store, task.task_id)
    assert ledger.unwritten() == set()


async def test_a_mark_whose_task_is_answered_is_never_written(store: Store, busy: None) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)
    await ledger.commit([Reported(wire.Result(task_id=task.task_id, run_id="r", nodes=("n",)))])
    assert ledger.unwritten() == set()
    await ledger.flush_now()
    assert not await sent(store, task.task_id)


async def test_a_mark_that_no_batch_takes_along_is_written_all_the_same(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=0.001)
    task = await begun(ledger)
    written, commit = asyncio.Event(), ledger._commit

    async def noted(events, marks):
        committed = await commit(events, marks)
        written.set()
        return committed

    ledger._commit = noted
    flushing = asyncio.create_task(ledger.flush())
    await written.wait()
    flushing.cancel()
    assert await sent(store, task.task_id)


async def test_marks_of_a_transaction_that_fails_are_kept(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=0)
    task = await begun(ledger)

    def fails(_: object) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await ledger.commit(fails)
    assert ledger.unwritten() == {task.mark}
    await ledger.flush_now()
    assert await sent(store, task.task_id)


async def test_one_mark_of_a_task_that_comes_again_and_again_holds_up_no_other(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)
    ledger.mark_sent([("other", task.task_id, 1)], ledger.epoch)
    ledger.mark_sent([("r", task.task_id, 2)], ledger.epoch)
    ledger.mark_sent([task.mark], ledger.epoch)  # of a transaction that failed: late, and of an attempt that is over
    assert list(ledger._sent) == [("other", task.task_id), ("r", task.task_id)]
    assert ledger.unwritten() == {("other", task.task_id, 1), ("r", task.task_id, 2)}


async def test_what_was_sent_a_moment_ago_is_not_held_as_unsent_by_a_pause(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)
    for kind in (wire.CommandKind.PAUSE, wire.CommandKind.RESUME):
        await ledger.commit([Commanded(wire.Command(id=uuid4(), kind=kind, run_id="r"))])
    assert await sent(store, task.task_id)
    assert await store.transact(lambda tx: tx.unsent(before=1e12, limit=9)) == []


async def test_another_attempt_than_the_marked_one_is_not_in_flight(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)
    assert task._replace(attempt=2).mark not in ledger.unwritten()


async def test_a_store_that_lost_a_refill_is_believed(store: Store) -> None:
    """As after a failover that lost its last transactions: else each task would be sent again and again."""
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    ledger.forget_sent(7)
    task = await begun(ledger)
    await ledger.flush_now()
    assert (ledger.epoch, await sent(store, task.task_id)) == (0, False)
    ledger.mark_sent([task.mark], ledger.epoch)
    await ledger.flush_now()
    assert await sent(store, task.task_id)


async def test_marks_of_a_broker_that_was_wiped_are_forgotten(store: Store) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=0)
    task = await begun(ledger)
    epoch = ledger.epoch
    ledger.forget_sent(epoch + 1)
    ledger.mark_sent([("r", task.task_id, 1)], epoch)
    await ledger.flush_now()
    assert not await sent(store, task.task_id)


async def test_marks_do_not_outlive_a_refill_by_another_coordinator(store: Store) -> None:
    """What was confirmed here is lost with the broker, and the other one has everything sent again."""
    ledger = Ledger(store, Limits(), b"secret", marks_after=3600)
    task = await begun(ledger)

    def refill(transaction: Transaction) -> None:
        transaction.unsend_all()
        transaction.set_meta(REFILLS, "1")

    await store.transact(refill)
    await ledger.flush_now()
    assert not await sent(store, task.task_id)
    assert ledger.epoch == 1
    ledger.mark_sent([task.mark], ledger.epoch)
    await ledger.flush_now()
    assert await sent(store, task.task_id)


async def test_an_end_that_is_confirmed_while_marks_are_written_is_written_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(store, Limits(), b"secret", marks_after=0)
    await begun(ledger)
    transact, ends = store.transact, [("another", 5.0)]

    async def confirm_meanwhile(work):
        done = await transact(work)
        ledger.mark_announced(ends)
        ends.clear()
        return done

    monkeypatch.setattr(store, "transact", confirm_meanwhile)
    flushing = asyncio.create_task(ledger.flush())
    async with asyncio.timeout(5):
        while ends or ledger.unwritten_ends():
            await asyncio.sleep(0)
    flushing.cancel()


async def test_all_transactions_go_on_when_one_has_found_the_store_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.coordinator.ledger.BACKOFF", (0, 3600))
    store = Away()
    ledger = Ledger(store, Limits(), b"secret")
    waiting = asyncio.create_task(ledger.transact("batch"))
    for _ in range(2):
        await store.tries.acquire()
    store.away = False
    await ledger.transact("another")
    async with asyncio.timeout(5):
        assert await waiting == "batch"


async def test_a_transaction_that_fails_alone_does_not_try_each_time_that_others_get_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowkit.coordinator.ledger.BACKOFF", (3600,))
    store = Away(only="batch")
    ledger = Ledger(store, Limits(), b"secret")
    waiting = asyncio.create_task(ledger.transact("batch"))
    for _ in range(100):
        await ledger.transact("another")
        await asyncio.sleep(0)
    tries = 0
    while not store.tries.locked():
        await store.tries.acquire()
        tries += 1
    waiting.cancel()
    assert tries == 2

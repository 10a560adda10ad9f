"""Cancelled tasks of limited nodes: their workers are told at once, and their slots are free when they have ended."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from flowkit.coordinator import Coordinator, silence
from flowkit.coordinator.ledger import Ledger
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST, House
from tests.coordinator.test_leases import W1, announce, ear

PATIENT = replace(FAST, slots_every=3600, lease_silence=3600)  # nothing happens for its time alone
SILENCE = replace(FAST, slots_every=3600, lease_silence=0.6)
OVER = {"cancelled", "failed"}


@contextlib.asynccontextmanager
async def limited(house: House, **more: Any) -> AsyncIterator[Coordinator]:
    """A coordinator that knows node ``b`` with ``limit=1``."""
    async with house.coordinator(**({"pace": PATIENT} | more)) as coordinator:
        announcement = {"worker": "other", "nodes": [{"name": "b", "limit": 1}], "running": []}
        await house.publish("workers", "", announcement)
        await house.until(lambda q: [name for name, *_ in q.node_infos() if name == "b"], "the announcement")
        yield coordinator


async def gather(house: House, run_id: str = "r", **more: Any) -> tuple[wire.Task, wire.Task]:
    """A Gather that returns exceptions: a task of ``b`` and one of ``c``, which both are out."""
    await house.start("a", run_id)
    (task,) = await house.tasks("a")
    branches = {"sends": ["b", "c"], "then": "d", "return_exceptions": False, **more}
    await house.answer(task, [{"gather": branches}], {})
    (limited_task,) = await house.tasks("b")
    (other,) = await house.tasks("c")
    return limited_task, other


async def wait_for_it(house: House, run_id: str = "next") -> None:
    """Another run wants the same slot."""
    await house.start("b", run_id)
    await house.until(lambda q: [row for row in q.tasks(run_id) if row.held_for == "limit"], "it waits for the slot")


async def out(house: House) -> tuple[int, int]:
    """What the slot counts, and how many of that are cancelled."""
    await house.store.transact(lambda tx: tx.admit(["b"], tx.node_limits()))
    count = (await house.store.query(lambda q: q.slots(["b"])))["b"]
    return count.out, count.ending


async def command(house: House, kind: str, run_id: str = "r", **more: Any) -> None:
    await house.publish("commands", kind, {"id": str(uuid4()), "kind": kind, "run_id": run_id, **more})


async def fails(house: House, other: wire.Task) -> None:
    await house.answer(other, status="failed", attempt=1, error={"type": "OSError"})


async def cancelled(house: House, task: wire.Task) -> None:
    def look(queries: Any) -> list[Any]:
        return [row for row in queries.tasks(task.run_id) if row.id == task.task_id and row.status in OVER]

    await house.until(look, "it is cancelled")


async def test_a_gather_that_fails_in_a_run_that_goes_on(either_house):
    """The failing Gather is a branch of another one, which returns exceptions."""
    house = either_house
    async with limited(house), ear(house) as hear:
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"gather": {"sends": ["g", "w"], "then": "e", "return_exceptions": True}}], {})
        (opens,) = await house.tasks("g")
        await house.answer(opens, [{"gather": {"sends": ["b", "c", "c"], "then": "d"}}], {})
        (mine,), others = await house.tasks("b"), await house.tasks("c", 2)
        await wait_for_it(house)
        await fails(house, others[0])
        (told,) = await hear()
        named = {(told.task_id, told.attempt), *told.others}
        assert (told.kind, told.run_id) == ("cancel", "r")
        assert named == {(mine.task_id, 1), (others[1].task_id, 1)}, "those of nodes without limits too"
        assert await out(house) == (1, 1)
        await house.answer(mine, status="returned", attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"
        assert await out(house) == (1, 0)
        await house.answer(following, attempt=1)
        (beside,) = await house.tasks("w")
        await house.answer(beside, attempt=1)
        (last,) = await house.tasks("e")
        await house.answer(last, attempt=1)
        assert (await house.run_ended("r")).status == "succeeded"


@pytest.mark.parametrize("status", ["succeeded", "failed", "retry", "returned"])
async def test_any_result_frees_the_slot_and_changes_nothing_else(house, status):
    async with limited(house):
        mine, other = await gather(house)
        await wait_for_it(house)
        await fails(house, other)
        assert (await house.run_ended("r")).status == "failed"
        assert await out(house) == (1, 1)
        await house.answer(mine, status="started", attempt=1)
        await house.until(lambda q: q.superseded("r"), "it begins all the same")
        assert await out(house) == (1, 1)
        await house.answer(mine, status=status, **({} if status == "retry" else {"attempt": 1}))
        (following,) = await house.tasks("b")
        assert (following.run_id, await out(house)) == ("next", (1, 0))
        assert {row.status for row in await house.rows("r") if row.node == "b"} == {"cancelled"}


@pytest.mark.parametrize("exceptions", [True, False])
async def test_a_gather_that_times_out(either_house, exceptions):
    house = either_house
    async with limited(house), ear(house) as hear:
        mine, _ = await gather(house, timeout=0.05, return_exceptions=exceptions)
        await wait_for_it(house)
        await cancelled(house, mine)
        told = await hear(1 if exceptions else 2)  # or the run has failed with it, and is told of as a whole
        named = {one.task_id for one in told} | {task_id for one in told for task_id, _ in one.others}
        assert mine.task_id in named
        assert await out(house) == (1, 1)
        await house.answer(mine, [], {"late": True}, attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_a_run_that_is_cancelled_with_a_grace(either_house):
    house = either_house
    async with limited(house), ear(house) as hear:
        mine, _ = await gather(house)
        await wait_for_it(house)
        await command(house, "cancel", grace=30)
        assert (await house.run_ended("r")).status == "cancelled"
        told = await hear(2)
        assert [(one.run_id, one.task_id, one.grace) for one in told] == [("r", None, 30), ("r", mine.task_id, 30)]
        assert await out(house) == (1, 1)
        await house.answer(mine, attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_its_result_in_the_very_batch_that_cancels_it(house):
    """It has ended already: nothing is held for it."""
    async with limited(house):
        mine, other = await gather(house)
        await wait_for_it(house)
        both = [
            {"task_id": str(other.task_id), "run_id": "r", "attempt": 1, "status": "failed", "error": {"type": "E"}},
            {"task_id": str(mine.task_id), "run_id": "r", "attempt": 1, "status": "succeeded"},
        ]
        await house.publish("results", "both", both)
        (following,) = await house.tasks("b")
        assert (following.run_id, await out(house)) == ("next", (1, 0))


async def test_a_retry_waits_until_the_attempt_before_has_ended(either_house):
    house = either_house
    async with limited(house):
        mine, other = await gather(house)
        await fails(house, other)
        await house.run_ended("r")
        await command(house, "retry")
        (again,) = await house.tasks("c")
        assert await out(house) == (1, 1)
        await house.answer(mine, status="returned", attempt=1)
        (second,) = await house.tasks("b")
        assert (second.task_id, second.attempt) == (mine.task_id, 2)
        await house.answer(second, attempt=2)
        await house.answer(again, attempt=2)
        (last,) = await house.tasks("d")
        await house.answer(last)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_a_paused_run_fails(house):
    async with limited(house):
        mine, other = await gather(house)
        await wait_for_it(house)
        await command(house, "pause")
        await house.until(lambda q: q.run("r").status == "paused", "the pause")
        await fails(house, other)
        await house.run_ended("r")
        assert await out(house) == (1, 1)
        await house.answer(mine, status="returned", attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_a_task_that_may_have_been_sent_counts_although_nothing_marks_it(house, monkeypatch):
    """Its coordinator died, and another one goes on."""
    monkeypatch.setattr(Ledger, "mark_sent", lambda *_: None)
    async with limited(house):
        mine, other = await gather(house)
        await wait_for_it(house)
        assert [row.sent_at for row in await house.rows("r") if row.node == "b"] == [None]
        await fails(house, other)
        await house.run_ended("r")
    async with limited(house, name="c2"):
        assert await out(house) == (1, 1)
        await house.answer(mine, status="returned", attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_one_that_was_never_sent_counts_no_more_when_nobody_has_announced_it(either_house):
    """Or that was lost with its queue, or whose worker died when its message was acknowledged."""
    house = either_house
    async with limited(house, pace=SILENCE):
        _, other = await gather(house)
        await wait_for_it(house)
        await fails(house, other)
        await house.run_ended("r")
        (following,) = await house.tasks("b")
        assert (following.run_id, await out(house)) == ("next", (1, 0))


async def test_a_worker_that_announces_it_keeps_its_slot(either_house):
    house = either_house

    async def heard_at() -> float:
        (attempt,) = await house.store.transact(lambda tx: tx.unheard_attempts(tx.now() + 60, 10))
        return attempt.heard_at

    async with limited(house, pace=SILENCE), ear(house) as hear:
        mine, other = await gather(house)
        await wait_for_it(house)
        await fails(house, other)
        await house.run_ended("r")
        await hear(2)
        begun = await heard_at()
        while await heard_at() < begun + 2 * SILENCE.lease_silence:
            await announce(house, (mine, 1.0))
            (again,) = await hear()
            assert (again.kind, again.worker) == ("cancel", W1), "whoever missed it hears it again"
        assert await out(house) == (1, 1)
        (following,) = await house.tasks("b")  # nobody announces it any more
        assert following.run_id == "next"


async def test_while_its_message_waits_in_its_queue_the_slot_stays_with_it(house):
    """What was let out in its place would stand behind it. That of ``z``, whose message is nowhere, is free."""
    async with limited(house, pace=SILENCE):
        announcement = {"worker": "third", "nodes": [{"name": "z", "limit": 1}], "running": []}
        await house.publish("workers", "", announcement)
        await house.until(lambda q: [name for name, *_ in q.node_infos() if name == "z"], "the announcement")
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"gather": {"sends": ["b", "z"], "then": "d"}}], {})
        await house.tasks("z")
        while (await house.broker.inspect(house.topology.tasks("b").name)).ready == 0:
            await house.until(lambda q: q.tasks("r"), "the message of b")
        await wait_for_it(house)
        await house.start("z", "other")
        await command(house, "cancel")
        (following,) = await house.tasks("z")
        assert following.run_id == "other"
        assert await out(house) == (1, 1)
        (mine,) = await house.tasks("b")
        assert mine.run_id == "r"
        await house.answer(mine, status="returned", attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_more_messages_than_a_look_takes_wait_in_their_queue(house, monkeypatch):
    """They are older than the one that nobody has, and hide it from no look."""
    monkeypatch.setattr(silence, "UNHEARD", 2)
    async with limited(house, pace=SILENCE):
        nodes = [{"name": "b", "limit": 3}, {"name": "z", "limit": 1}]
        await house.publish("workers", "", {"worker": "third", "nodes": nodes, "running": []})
        await house.until(lambda q: [name for name, *_ in q.node_infos() if name == "z"], "the announcement")
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"gather": {"sends": ["b", "b", "b"], "then": "d"}}], {})
        await house.until(
            lambda q: sum(row.node == "b" and row.sent_at is not None for row in q.tasks("r")) == 3, "they wait"
        )
        await command(house, "cancel")
        await house.run_ended("r")
        await house.start("z", "lost")
        await house.tasks("z")
        await house.start("z", "other")
        await house.until(lambda q: q.tasks("other"), "it waits for the slot")
        await command(house, "cancel", "lost")
        (following,) = await house.tasks("z")
        assert following.run_id == "other"
        assert await out(house) == (3, 3)


async def test_what_waits_behind_it_fails_in_time_where_no_worker_is_alive(house):
    """Whoever takes its message later refuses it, for its own time is over."""
    async with house.coordinator(pace=replace(SILENCE, overdue_every=0.02, worker_silence=0.3)):
        node = {"name": "b", "limit": 1, "queue_timeout": 0.5}
        await house.publish("workers", "", {"worker": "gone", "nodes": [node], "running": []})
        await house.until(lambda q: [name for name, *_ in q.node_infos() if name == "b"], "the announcement")
        await house.start("b", "r")
        await house.until(lambda q: [row for row in q.tasks("r") if row.sent_at], "its message waits")
        await wait_for_it(house)
        await command(house, "cancel")
        error = codec.loads((await house.run_ended("next")).error)
        assert error["type"] == "QueueTimeout"


async def test_its_queue_is_deleted(house):
    async with limited(house, pace=SILENCE):
        _, other = await gather(house)
        await house.leave("b")
        await wait_for_it(house)
        await house.broker.delete(house.topology.tasks("b").name)
        await fails(house, other)
        await house.run_ended("r")
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_its_run_is_removed(house):
    """An answer is a dead letter then, so the silence decides."""
    async with limited(house, pace=SILENCE):
        mine, other = await gather(house)
        await wait_for_it(house)
        await fails(house, other)
        await house.run_ended("r")
        await house.store.transact(lambda tx: tx.prune(tx.now() + 60, 1000))
        assert await out(house) == (1, 1)
        await house.answer(mine, attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"


async def test_a_process_that_is_told_to_fail_its_task_again_and_again_counts_until_it_answers(house):
    """``max_deaths``: whoever has begun it last goes on until he hears of it."""
    async with limited(house), ear(house) as hear:
        mine, _ = await gather(house)
        await wait_for_it(house)
        for number in range(4):
            await house.answer(mine, status="started", attempt=1, worker=f"w{number}", started_at=number + 1.0)
        assert "processes died" in (await house.run_ended("r")).message
        assert (await hear())[0].task_id == mine.task_id
        assert await out(house) == (1, 1)
        await house.answer(mine, status="returned", attempt=1)
        (following,) = await house.tasks("b")
        assert following.run_id == "next"

"""Queues that refuse tasks: their nodes wait, nobody else does."""

from __future__ import annotations

import asyncio
import logging

from flowkit.flow.refusals import key_of, read_reason
from flowkit.wire import messages as wire
from tests.coordinator.house import House


async def fill(house: House, node: str, most: int) -> None:
    """Let the node's queue hold so many messages, of which it has none yet."""
    await house.broker.declare([house.topology.tasks(node)])
    house.broker.limit_length(house.topology.tasks(node).name, most)


async def refused(house: House, node: str) -> str:
    def look(queries):
        return read_reason(queries.meta(key_of(node)), queries.runs(limit=1)[0][0].started_at)

    return await house.until(look, f"the note that the queue of {node} refuses")


async def test_a_full_queue_of_one_node_holds_up_no_other(house, caplog):
    caplog.set_level(logging.INFO, "flowkit.coordinator")
    async with house.coordinator():
        await house.broker.declare(house.topology.standing)
        await fill(house, "full", 3)
        for n in range(20):
            await house.start("full", f"f{n:02}", inputs={"n": n})
        assert await refused(house, "full") == "it is full"
        for n in range(20):
            await house.start("other", f"o{n}")
        async with asyncio.timeout(5):
            tasks = await house.tasks("other", 20)
            for task in tasks:
                await house.answer(task)
            for n in range(20):
                await house.run_ended(f"o{n}")
        async with asyncio.timeout(10):
            late = await house.tasks("full", 20)
    assert [task.run_id for task in late] == [f"f{n:02}" for n in range(20)], (
        "each once, in the order in which they came"
    )
    told = [record for record in caplog.records if getattr(record, "action", "") == "queue_refuses"]
    assert [record.node for record in told] == ["full"], "one line, not one for each task or attempt"


async def test_a_queue_that_has_room_again_gets_new_tasks_at_once(house, caplog):
    caplog.set_level(logging.INFO, "flowkit.coordinator")
    async with house.coordinator():
        await house.broker.declare(house.topology.standing)
        await fill(house, "full", 1)
        for n in range(3):
            await house.start("full", f"f{n}")
        await refused(house, "full")
        house.broker.limit_length(house.topology.tasks("full").name, None)
        async with asyncio.timeout(10):
            await house.tasks("full", 3)
            while not any(getattr(record, "action", "") == "queue_accepts" for record in caplog.records):
                await asyncio.sleep(0.01)
        await house.start("full", "late")
        await house.tasks("full")


async def test_a_coordinator_that_begins_finds_a_full_queue_and_keeps_the_order(house):
    await house.broker.declare(house.topology.standing)
    await fill(house, "full", 2)
    async with house.coordinator():
        for n in range(6):
            await house.start("full", f"f{n}")
        await refused(house, "full")
    async with house.coordinator(alone=True):
        async with asyncio.timeout(10):
            assert [task.run_id for task in await house.tasks("full", 6)] == [f"f{n}" for n in range(6)]


async def test_a_task_is_sent_soon_after_its_queue_was_deleted(house):
    async with house.coordinator():
        await house.start("gone", "r0")
        await house.tasks("gone")
        await house.broker.delete(house.topology.tasks("gone").name)
        await house.start("gone", "r1")
        async with asyncio.timeout(5):
            assert [task.run_id for task in await house.tasks("gone")] == ["r1"]


async def test_dead_letters_that_their_full_queue_refuses_are_in_the_store_and_results_flow(house):
    async with house.coordinator():
        await house.broker.declare(house.topology.standing)
        house.broker.limit_length(house.topology.dead.name, 0)
        await house.publish("starts", "a", b"{")
        await house.start("a", "r1")
        await house.tasks("a")
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
    assert (letter.reason, letter.queue, letter.body) == ("not-json", house.topology.starts.name, b"{")


async def test_the_end_of_a_run_is_announced_when_the_exchange_is_back(house):
    async with house.coordinator():
        ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
        await ear.wait_connected()
        house.broker.delete_exchange(house.topology.name("runs"))
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, [], {"ok": True})
        await house.run_ended("r1")
        await house.start("a", "r2")
        await house.tasks("a")  # nothing waits for it
        await ear.close()
        await house.broker.declare(house.topology.standing)
        ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
        async with asyncio.timeout(5):
            (delivery,) = await ear.receive(1)
        assert wire.decode(wire.RunEnded, delivery.body).outputs == {"ok": True}
        await ear.close()

"""The same way round on a real RabbitMQ and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from flowkit import amqp
from flowkit.broker import open_broker
from flowkit.store import open_store
from flowkit.wire import codec
from flowkit.wire.topology import Topology
from tests.coordinator.house import FAST, House

PACE = replace(FAST, relay_after=10)  # longer than the other one takes to send


async def test_a_gather_goes_round(real_house):
    house = real_house
    async with house.coordinator():
        await house.start("a", "r1", inputs={"text": "\0"})
        (task,) = await house.tasks("a")
        assert task.inputs == {"text": "\0"}
        sends = [{"node": "m", "inputs": {"i": i}} for i in range(50)]
        await house.answer(task, [{"gather": {"sends": sends, "then": "sum"}}], {"text": "\0"})
        for branch in await house.tasks("m", 50):
            await house.answer(branch, [], {"i": branch.inputs["i"]})
        (then,) = await house.tasks("sum")
        assert then.inputs == {"text": "\0", "results": [{"i": i} for i in range(50)]}
        await house.answer(then, [], {"done": True})
        run = await house.run_ended("r1")
        assert (run.status, codec.loads(run.outputs)) == ("succeeded", {"done": True})


async def test_two_coordinators_apply_a_thousand_duplicates_once(real_house, postgres_database):
    """Both read the same queues; each result is published five times."""
    store = await open_store(postgres_database)
    second = House(real_house.broker, store, real_house.topology)
    try:
        async with real_house.coordinator(name="c1", pace=PACE), second.coordinator(name="c2", pace=PACE):
            runs = [f"r{index}" for index in range(40)]
            await asyncio.gather(*(real_house.start("a", run) for run in runs for _ in range(5)))
            tasks = await real_house.tasks("a", len(runs))
            gather = {"gather": {"sends": ["m", "m"], "then": "sum"}}
            await asyncio.gather(*(real_house.answer(task, [gather], {"x": 1}) for task in tasks for _ in range(5)))
            branches = await real_house.tasks("m", 2 * len(runs))
            await asyncio.gather(*(real_house.answer(task, [], {"b": 1}) for task in branches for _ in range(5)))
            sums = await real_house.tasks("sum", len(runs))
            assert {task.run_id for task in sums} == set(runs)
            await asyncio.gather(*(real_house.answer(task, [], {"s": 1}) for task in sums for _ in range(5)))
            for run in runs:
                assert (await real_house.run_ended(run)).status == "succeeded"
                assert len(await real_house.rows(run)) == 4
    finally:
        await store.close()


@pytest.mark.parametrize("node", ["a", "m", "sum"])
async def test_nothing_is_left_in_the_queues(real_house, node):
    house = real_house
    async with house.coordinator():
        await house.start(node, "r1")
        (task,) = await house.tasks(node)
        await house.answer(task)
        await house.run_ended("r1")
    for queue in (house.topology.starts, house.topology.results, house.topology.tasks(node)):
        state = await house.broker.inspect(queue.name)
        assert state is not None
        assert state.ready == 0


async def test_two_coordinators_behind_a_pooler(rabbitmq_url, pooled_database, namespace):
    """PgBouncer in transaction mode: each transaction of each coordinator may have another connection."""
    broker = open_broker(rabbitmq_url)
    stores = [await open_store(pooled_database) for _ in range(2)]
    first, second = (House(broker, store, Topology(namespace)) for store in stores)
    try:
        async with first.coordinator(name="c1", pace=PACE), second.coordinator(name="c2", pace=PACE):
            runs = [f"r{number}" for number in range(30)]
            for run_id in runs:
                await first.start("a", run_id)
            for task in await first.tasks("a", len(runs)):
                await first.answer(task, ["b"], {"text": "\0"})
            for task in await first.tasks("b", len(runs)):
                assert task.inputs == {"text": "\0"}
                await first.answer(task, [], {"done": True})
            for run_id in runs:
                assert (await second.run_ended(run_id)).status == "succeeded"
    finally:
        await first.close()
        for store in stores:
            await store.close()
        await broker.close()


async def test_a_log_line_that_no_index_holds_stands_in_the_stream(real_house):
    """As somebody's, from before the coordinator began: it begins, and comes to all that stands behind."""
    house = real_house
    async with house.coordinator():
        pass  # declares the stream
    long = Random(3).randbytes(4_500).hex()
    line = {"ts": 1, "level": "INFO", "message": "hello", "run_id": "r"}
    await house.publish("logs", "", line | {"worker": long, "seq": 1}, durable=False)
    await house.publish("workers", "", {"worker": long}, durable=False)
    await house.publish("logs", "", line | {"worker": "w", "seq": 1}, durable=False)
    async with house.coordinator():
        (told,) = await house.until(lambda queries: queries.logs(run_id="r"), "the line behind it")
        assert told.worker == "w"
        await house.start("a", "r1")
        await house.answer((await house.tasks("a"))[0])
        assert (await house.run_ended("r1")).status == "succeeded"


async def test_properties_whose_bytes_are_no_text_stop_nobody(real_house, monkeypatch):
    """A letter of such a message has them as text, which takes four bytes for each."""
    write = amqp.encode_properties
    monkeypatch.setattr(amqp, "encode_properties", lambda **given: write(**given).replace(b"Z" * 250, b"\xff" * 250))
    house = real_house
    async with house.coordinator():
        for odd in ("app_id", "correlation_id", "message_id"):
            await house.publish("starts", "a", b"{", **{odd: "Z" * 250})
        await house.start("a", "fine")
        await house.tasks("a")
        letters = await house.until(
            lambda queries: len(found := queries.dead(limit=10)) == 3 and found, "three letters"
        )
        assert {letter.reason for letter in letters} == {"not-json"}

"""Results that are ready together share messages, and each keeps a fate of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from flowkit.errors import PublishError, Unroutable
from flowkit.wire import codec
from flowkit.wire.messages import Result, Status, Task, decode_many
from flowkit.wire.topology import Binding, Queue
from flowkit.worker import Worker

from .tasks import define, task

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@asynccontextmanager
async def finished_together(house, main, *tasks, traced=()):
    """A worker whose mains all end at once."""
    go = asyncio.Event()

    async def held():
        await go.wait()
        return await main()

    async with house.worker(define(held)) as worker:
        await house.send(*tasks)
        sent = [("work", one.encode(), Task.TYPE) for one in traced]
        await house.raw("tasks", *sent, headers={"traceparent": TRACE})
        async with asyncio.timeout(10):
            while sum(one.since is not None for one in worker._taken) < len(tasks) + len(traced):
                await asyncio.sleep(0)
        go.set()
        yield worker


async def messages(house, count):
    """What arrives until so many results are there: deliveries, each with its results."""
    got = []
    while sum(len(results) for _, results in got) < count:
        for delivery in await house.receive(house.topology.results):
            got.append((delivery, decode_many(Result, delivery.body)))
    return got


async def fine():
    return [], {"x": 1}, ""


async def test_results_that_are_ready_together_share_messages(house):
    tasks = [task() for _ in range(50)]
    async with finished_together(house, fine, *tasks) as worker:
        got = await messages(house, 50)
        assert await worker.stop() is False
    assert [len(results) for _, results in got] == [20, 20, 10]
    assert {one.task_id for _, results in got for one in results} == {one.task_id for one in tasks}
    assert all(delivery.key == "work.succeeded" for delivery, _ in got)
    assert await house.left() == 0, "every one of their tasks is acknowledged"


async def test_one_that_is_alone_is_an_object(house):
    async with house.worker(define(fine)):
        await house.send(task())
        (delivery,) = await house.receive(house.topology.results)
        assert isinstance(codec.loads(delivery.body), dict)


async def test_a_message_has_one_node_one_status_one_trace_and_says_the_run_when_it_is_one(house):
    async def main():
        from flowkit.worker.current import current

        if current.get().task.inputs:
            raise OSError("no")
        return [], {}, ""

    tasks = [task(inputs={"n": n} if n % 2 else {}, run_id=f"run-{n % 2 and n}") for n in range(20)]
    traced = [task(run_id="run-0") for _ in range(5)]
    async with finished_together(house, main, *tasks, traced=traced):
        got = await messages(house, 25)
    for delivery, results in got:
        assert {f"work.{one.status}" for one in results} == {delivery.key}
        runs = {one.run_id for one in results}
        assert delivery.correlation_id == (runs.pop() if len(runs) == 1 else None)
        of_traced = {one.task_id in {mine.task_id for mine in traced} for one in results}
        assert of_traced == {delivery.headers.get("traceparent") == TRACE}
    assert any(delivery.correlation_id == "run-0" and len(results) > 1 for delivery, results in got)
    assert any(delivery.correlation_id is None for delivery, _ in got)


async def test_large_results_do_not_share_a_message(house):
    async def main():
        return [], {"x": "y" * 40_000}, ""

    async with finished_together(house, main, *[task() for _ in range(5)]):
        assert [len(results) for _, results in await messages(house, 5)] == [1] * 5


async def test_a_message_that_is_too_large_is_split_and_nobody_fails_who_fits(house):
    async def main():
        from flowkit.worker.current import current

        return [], {"x": "y" * current.get().task.inputs["size"]}, ""

    house.broker._limit = 2_000
    tasks = [task(inputs={"size": 5_000 if n == 7 else 300}) for n in range(20)]
    async with finished_together(house, main, *tasks) as worker:
        got = [one for _, results in await messages(house, 20) for one in results]
        assert await worker.stop() is False
    assert sorted(one.task_id.int for one in got) == sorted(one.task_id.int for one in tasks)
    (failed,) = [one for one in got if one.status is Status.FAILED]
    assert (failed.task_id, failed.error.type) == (tasks[7].task_id, "TooLarge")
    assert await house.left() == 0


async def test_what_nobody_hears_yet_is_said_again(house, monkeypatch):
    publish, refused = house.broker.publish, []

    async def nobody_there(messages):
        mine = [message for message in messages if message.type == Result.TYPE]
        if mine and len(refused) < 2:
            refused.append(mine)
            return [Unroutable(message.exchange, message.key) for message in messages]
        return await publish(messages)

    async with house.worker(define(fine)) as worker:
        worker._reporter._backoff = 0
        monkeypatch.setattr(house.broker, "publish", nobody_there)
        tasks = [task() for _ in range(30)]
        await house.send(*tasks)
        results = await house.results(30)
        assert {one.task_id for one in results} == {one.task_id for one in tasks}
        assert await worker.stop() is False
    assert len(refused) == 2
    assert await house.left() == 0


async def test_results_that_a_full_queue_refuses_are_kept_and_the_other_queue_gets_its_own(house, caplog):
    async with house.worker(define(fine), define(fine, "other")) as worker:
        worker._reporter._backoff = 0.01
        own = Queue("own", (), (Binding(house.topology.name("results"), "work.*"),))
        await house.mine.declare([own])
        house.mine.limit_length(own.name, 0)
        await house.send(*[task() for _ in range(3)])
        await house.send(task("other"))
        async with asyncio.timeout(5):
            while not (told := [one for one in caplog.records if getattr(one, "action", "") == "publish_again"]):
                await asyncio.sleep(0)
            house.mine.limit_length(own.name, None)
            kept = house.mine.consume(own, prefetch=9)
            got = []
            while sum(len(decode_many(Result, one.body)) for one in got) < 3:
                got += await kept.receive(9)
        assert await worker.stop() is False
    assert "full" in told[0].message
    assert len(told) == 1
    assert (await house.left(), await house.left("other")) == (0, 0)


async def test_a_worker_declares_what_its_results_need(house):
    async with house.worker(define(fine), heartbeat=0.02) as worker:
        worker._reporter._backoff = 0.01
        house.mine.delete_binding(house.topology.name("results"), house.topology.results.name)
        await house.send(task())
        kept = house.mine.consume(house.topology.results, prefetch=9)
        async with asyncio.timeout(5):
            assert len(await kept.receive(9)) == 1


async def test_a_result_that_is_refused_ends_the_worker_but_what_was_confirmed_is_acknowledged(house, monkeypatch):
    publish, go, running = house.broker.publish, asyncio.Event(), []

    async def forbidden(messages):
        verdicts = await publish([message for message in messages if not message.key.startswith("other")])
        return [PublishError("403") if message.key.startswith("other") else verdicts.pop(0) for message in messages]

    async def main():
        running.append(1)
        await go.wait()
        return [], {}, ""

    monkeypatch.setattr(house.broker, "publish", forbidden)
    worker = Worker(house.broker, house.topology, [define(main), define(main, "other")], heartbeat=3600, log_linger=0)
    ending = asyncio.create_task(worker.run())
    await worker.ready()
    await house.send(task("other"), *[task() for _ in range(5)])
    async with asyncio.timeout(10):
        while len(running) < 6:
            await asyncio.sleep(0)
    go.set()
    with pytest.raises(PublishError, match="403"):
        await ending
    await house.broker.close()
    assert await house.left() == 0, "what was confirmed does not run again"
    assert await house.left("other") == 1


@pytest.mark.parametrize("strange", [["a", "list"], {"a": "table"}, 7, "no trace", TRACE + "\n"])
async def test_a_trace_that_is_none_goes_no_further(house, strange):
    async with house.worker(define(fine)):
        await house.raw("tasks", ("work", task().encode(), Task.TYPE), headers={"traceparent": strange})
        (delivery,) = await house.receive(house.topology.results)
    assert delivery.headers == {}

"""The worker over a broker in memory."""

import asyncio
from uuid import UUID

import pytest
from pydantic import BaseModel

from flowkit.broker.memory.consumer import MemoryConsumer
from flowkit.errors import FlowKitError, UsageError
from flowkit.wire.messages import Result, Status
from flowkit.worker import Worker, runner, worker_name
from flowkit.worker.announce import flowkit_version
from flowkit.worker.stage import OwnThread, SameLoop

from .tasks import define, lease, task, until


async def fine():
    return ["next"], {"x": 1}, "fine"


async def test_a_task_becomes_a_result_and_is_acknowledged(house):
    async with house.worker(define(fine)) as worker:
        mine = task(attempt=2)
        await house.send(mine)
        (delivery,) = await house.receive(house.topology.results)
        assert (delivery.key, delivery.app_id, delivery.correlation_id) == ("work.succeeded", "work", "run-1")
        assert delivery.type == "flowkit.result"
        assert await worker.stop() is False
    assert await house.left() == 0


async def test_several_nodes_and_many_tasks(house):
    async def other():
        return [], {"of": "other"}, ""

    async with house.worker(define(fine), define(other, "other")):
        tasks = [task(node) for node in ("work", "other") for _ in range(300)]
        await house.send(*tasks)
        results = await house.results(600)
    assert {one.task_id for one in results} == {one.task_id for one in tasks}
    assert all(one.outputs == ({"x": 1} if one.node == "work" else {"of": "other"}) for one in results)


async def test_as_many_run_at_a_time_as_the_node_or_the_worker_says(house, gate):
    async with house.worker(define(gate.main), concurrency=7):
        await house.send(*[task() for _ in range(20)])
        await gate.inside(7)
        assert len(gate.ids) == 7
        gate.open.set()
        await house.results(20)
    async with house.worker(define(gate.main, concurrency=3), concurrency=7):
        gate.open.clear()
        gate.ids.clear()
        await house.send(*[task() for _ in range(20)])
        await gate.inside(3)
        assert len(gate.ids) == 3
        gate.open.set()
        await house.results(20)


async def test_a_result_that_is_not_confirmed_leaves_its_task_unacknowledged(house, gate):
    async with house.worker(define(gate.main)) as worker:
        await house.send(task())
        await gate.inside(1)
        house.broker.block()
        gate.open.set()
        worker.force()
        assert await worker.stop() is True
        assert await house.left() == 1, "it will run again"
        house.broker.unblock()


@pytest.mark.parametrize(("call", "consumers"), [("stop", 2), ("close", 3)])  # of two nodes, and of control messages
async def test_a_worker_that_ends_waits_for_all_of_its_consumers_at_once(house, monkeypatch, call, consumers):
    """A broker that does not answer costs the time of one consumer, not of each in turn."""
    barrier, original, met = asyncio.Barrier(consumers), getattr(MemoryConsumer, call), set()

    async def together(consumer):
        if consumer not in met and len(met) < consumers:
            met.add(consumer)
            async with asyncio.timeout(20):
                await barrier.wait()
        await original(consumer)

    async with house.worker(define(fine), define(fine, "other")) as worker:
        monkeypatch.setattr(MemoryConsumer, call, together)
        assert await worker.stop() is False
    assert len(met) == consumers


async def test_a_worker_ends_although_its_last_announcement_does_not_leave(house, monkeypatch):
    monkeypatch.setattr("flowkit.worker.worker.LAST_WORDS", 0.05)
    async with house.worker(define(fine)) as worker:
        never, publish = asyncio.Event(), house.broker.publish

        async def silent(messages):
            await (never.wait() if messages[0].type == "flowkit.worker" else publish(messages))

        monkeypatch.setattr(house.broker, "publish", silent)
        async with asyncio.timeout(20):
            assert await worker.stop() is False


async def test_a_delivery_again_after_a_lost_connection_is_not_run_twice(house, gate):
    async with house.worker(define(gate.main)) as worker:
        await house.send(task(), task())
        await gate.inside(2)
        house.broker.disconnect()
        gate.open.set()
        results = await house.results(2)
        assert len({one.task_id for one in results}) == 2
        assert await worker.stop() is False
    assert len(gate.ids) == 2
    assert await house.left() == 0


async def test_an_acknowledgement_that_was_lost_does_not_run_the_task_again(house, gate):
    async with house.worker(define(gate.main)) as worker:
        await house.send(task())
        await gate.inside(1)
        house.broker.lose_confirms()  # the result is stored; then the connection is gone, and the task comes again
        gate.open.set()
        results = await house.results(2)
        assert results[0] == results[1], "published again, as the confirm was lost"
        assert await worker.stop() is False
    assert len(gate.ids) == 1
    assert await house.left() == 0


async def test_what_a_wiped_broker_had_confirmed_does_not_answer_a_task_that_comes_again(house, gate):
    gate.open.set()
    async with house.worker(define(gate.main)) as worker:
        mine = task()
        await house.send(mine)
        await until(lambda: gate.ids and not worker.running)  # the result is confirmed, and nobody has read it
        house.mine.wipe()
        await house.mine.declare([*house.topology.standing, house.topology.tasks("work")])
        await house.send(mine)
        house.broker.disconnect()  # before it is looked at: RabbitMQ cuts connections while its new queues begin
        async with asyncio.timeout(5):
            assert (await house.result()).task_id == mine.task_id
        assert await worker.stop() is False
    assert len(gate.ids) == 2
    assert await house.left() == 0


async def test_a_result_is_said_again_to_a_broker_that_was_wiped_while_its_batch_waited(house, gate, monkeypatch):
    stored, others = asyncio.Event(), asyncio.Event()
    publish = house.broker.publish

    async def held_up(messages):
        """Confirmed, and others of the batch are not before there is a connection again."""
        verdicts = await publish(messages)
        if messages[0].type == Result.TYPE:
            stored.set()
            await others.wait()
        return verdicts

    monkeypatch.setattr(house.broker, "publish", held_up)
    gate.open.set()
    async with house.worker(define(gate.main)) as worker:
        mine = task()
        await house.send(mine)
        await stored.wait()
        house.mine.wipe()
        await house.mine.declare([*house.topology.standing, house.topology.tasks("work")])
        await house.send(mine)
        await until(lambda: [len(one.deliveries) for one in worker._taken] == [2])
        others.set()
        async with asyncio.timeout(5):
            assert (await house.result()).task_id == mine.task_id
        assert await worker.stop() is False
    assert len(gate.ids) == 1
    assert await house.left() == 0


async def test_the_same_task_sent_twice_runs_once_while_it_runs(house, gate):
    async with house.worker(define(gate.main)) as worker:
        twice, later = task(), task()
        await house.send(twice, twice, twice.model_copy(update={"attempt": 2}), later)
        await gate.inside(3)
        gate.open.set()
        results = await house.results(3)
        assert sorted(one.attempt for one in results) == [1, 1, 2]
        assert await worker.stop() is False
    assert await house.left() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" * 300 + b"]" * 300,
        b"[1]",
        b'{"v": 2}',
        b'{"task_id": "x", "run_id": "r", "node": "work"}',
        task("other", id=UUID(int=1)).encode(),
    ],
)
async def test_what_cannot_be_read_is_given_up_to_the_dead_letters(house, body):
    async with house.worker(define(fine)) as worker:
        await house.raw("tasks", ("work", body, "some.type"), headers={"traceparent": "00-a-b-01"})
        await house.send(task())
        assert (await house.result()).status is Status.SUCCEEDED, "the others flow"
        (dead,) = await house.receive(house.topology.dead)
        assert dead.body == body
        assert (dead.key, dead.type) == ("flowkit.tasks.work", "some.type")
        assert dead.headers["x-death"][0]["reason"] == "rejected"
        assert dead.headers["traceparent"] == "00-a-b-01"
        assert await worker.stop() is False
    assert await house.left() == 0


async def test_force_ends_a_worker_that_waits_for_its_broker(house):
    house.broker.go_down()
    worker = Worker(house.broker, house.topology, [define(fine)])
    running = asyncio.create_task(worker.run())
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    worker.force()
    async with asyncio.timeout(5):
        await asyncio.wait([running])
        assert await stopping is False


async def test_a_task_delivered_twice_before_runs_alone_after_saying_so(house, gate):
    suspect, others = task("suspect"), [task(), task()]

    async def alone():
        assert not any(one.since for one in worker._taken if one.task.node == "work")
        return [], {}, ""

    await house.mine.declare([*house.topology.standing, house.topology.tasks("suspect")])
    # Two deliveries that ended with a lost connection:
    await house.send(suspect)
    for _ in range(2):
        consumer = house.mine.consume(house.topology.tasks("suspect"), prefetch=1)
        await consumer.receive(1)
        await consumer.close()
    gate.open.set()
    async with house.worker(define(gate.main), define(alone, "suspect")) as worker:
        await house.send(*others)
        results = await house.results(4)
        started, done = [one for one in results if one.node == "suspect"]
        assert (started.status, started.task_id, started.worker) == (Status.STARTED, suspect.task_id, "w")
        assert started.started_at <= done.started_at
        assert done.status is Status.SUCCEEDED


async def test_draining_finishes_what_runs_and_gives_back_the_rest(house, gate):
    async with house.worker(define(gate.main, concurrency=4)) as worker:
        await house.send(*[task() for _ in range(10)])
        await gate.inside(4)
        stopping = asyncio.create_task(worker.stop())
        while await house.left() < 6:
            await asyncio.sleep(0)
        assert not stopping.done()
        gate.open.set()
        assert await stopping is False
        assert len(await house.results(4)) == 4
    assert await house.left() == 6
    assert len(gate.ids) == 4


async def test_draining_abandons_what_does_not_end_in_time(house, gate):
    async with house.worker(define(gate.main), drain_timeout=0.05) as worker:
        await house.send(task())
        await gate.inside(1)
        assert await worker.stop() is True
    assert await house.left() == 1


async def test_forcing_does_not_wait(house, gate):
    async with house.worker(define(gate.main), drain_timeout=3600) as worker:
        await house.send(task())
        await gate.inside(1)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        worker.force()
        assert await stopping is True
    assert await house.left() == 1


async def test_a_cancelled_run_is_stopped_and_returned(house, gate):
    async with house.worker(define(gate.main, concurrency=2)) as worker:
        mine, waiting, others = task(run_id="a"), task(run_id="a"), task(run_id="b")
        await house.send(mine, others, waiting)
        await gate.inside(2)
        await lease(house, others)
        await until(lambda: len(worker._taken) == 3)
        await house.control(kind="cancel", run_id="a")
        returned = await house.results(2)
        assert {one.status for one in returned} == {Status.RETURNED}
        assert {one.task_id for one in returned} == {mine.task_id, waiting.task_id}
        gate.open.set()
        assert (await house.result()).task_id == others.task_id
        assert await worker.stop() is False
    assert await house.left() == 0


async def test_control_for_others_is_ignored(house, gate):
    async with house.worker(define(gate.main)):
        mine = task(attempt=2)
        await house.send(mine)
        await gate.inside(1)
        await house.control(kind="cancel")
        await house.control(kind="cancel", run_id="another")
        await house.control(kind="cancel", task_id=mine.task_id, attempt=1)
        await house.control(kind="cancel", task_id=mine.task_id, worker="another")
        await house.raw("control", ("", b"nonsense", "x"), ("", b'{"kind": "dance"}', "x"))
        await house.control(kind="paused", run_id=mine.run_id)  # what runs comes to its end
        gate.open.set()
        assert (await house.result()).status is Status.SUCCEEDED


async def test_a_lease_acknowledges_the_task_while_it_runs(house, gate):
    async with house.worker(define(gate.main)) as worker:
        mine = task()
        await house.send(mine)
        await gate.inside(1)
        await house.control(kind="leased", run_id=mine.run_id, task_id=mine.task_id, attempt=1, worker="w")
        while any(one.deliveries for one in worker._taken):
            await asyncio.sleep(0)
        worker.force()
        assert await worker.stop() is True
        assert (await house.result()).status is Status.RETURNED, "no message would bring it back"
    assert await house.left() == 0


async def test_a_main_that_cancels_itself_fails(house):
    async def main():
        asyncio.current_task().cancel()
        await asyncio.Event().wait()

    async with house.worker(define(main)):
        await house.send(task())
        result = await house.result()
        assert (result.status, result.error.message) == (Status.FAILED, "main cancelled itself")


async def test_a_main_that_exits_does_not_end_the_worker(house):
    async def main():
        raise SystemExit(1)

    async with house.worker(define(main)):
        await house.send(task(), task())
        assert [one.error.type for one in await house.results(2)] == ["SystemExit"] * 2


async def test_a_result_that_the_broker_finds_too_large_fails(house):
    async def main():
        return [], {"x": "y" * 5_000}, ""

    house.broker._limit = 2_000  # lower than the worker's own
    async with house.worker(define(main)):
        await house.send(task())
        result = await house.result()
        assert result.error.type == "TooLarge"
        assert "over the limit of 2,000" in result.message


async def test_announcements_say_what_there_is_and_what_runs(house, gate):
    class Inputs(BaseModel):
        a: int

    async def typed(inputs: Inputs):
        return [], {}, ""

    definitions = define(gate.main, timeout=30, queue_timeout=60, on_error="report"), define(typed, "typed")
    async with house.worker(*definitions, heartbeat=0.02, clock=lambda: 1_000.0) as worker:
        first = await house.announcement()
        assert (first.worker, first.running, first.stopping) == ("w", (), False)
        assert first.version == flowkit_version()
        node, other = first.nodes
        assert (node.name, node.on_error, node.timeout, node.queue_timeout) == ("work", "report", 30, 60)
        assert node.schemas is None
        assert other.schemas["inputs"]["properties"]["a"]["type"] == "integer"
        mine = task(attempt=3)
        await house.send(mine)
        await gate.inside(1)
        while not (beat := await house.announcement()).running:
            pass
        assert beat.running == ((mine.task_id, 3, 1_000.0, "run-1"),)
        gate.open.set()
        await worker.stop()
        while not (last := await house.announcement()).stopping:
            pass
        assert last.running == ()


async def test_a_wiped_broker_is_declared_again(house):
    async with house.worker(define(fine), heartbeat=0.02):
        house.mine.wipe()
        await house.mine.declare([*house.topology.standing, house.topology.tasks("work")])
        await house.send(task())
        assert (await house.result()).status is Status.SUCCEEDED


async def test_a_queue_that_cannot_be_consumed_ends_the_worker_loudly(house):
    class Final(FlowKitError):
        pass

    async def refuse(limit):
        raise Final("406")

    definition = define(fine)
    worker = Worker(house.broker, house.topology, [definition], heartbeat=3600)
    consume = house.broker.consume

    def consume_refused(queue, **options):
        consumer = consume(queue, **options)
        if queue.name == "flowkit.tasks.work":
            consumer.receive = refuse
        return consumer

    house.broker.consume = consume_refused
    with pytest.raises(Final):
        await worker.run()
    assert await worker.stop() is False, "and nobody waits for it for ever"


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
async def test_a_mistake_of_ours_ends_the_worker_loudly_and_loses_nothing(house, monkeypatch, stage):
    async def broken(*args, **options):
        raise LookupError("a mistake")

    worker = Worker(house.broker, house.topology, [define(fine)], heartbeat=3600, stage=stage())
    running = asyncio.create_task(worker.run())
    await worker.ready()
    monkeypatch.setattr(runner, "execute", broken)
    await house.send(task())
    with pytest.raises(LookupError, match="a mistake"):
        await running
    await house.broker.close()
    assert await house.left() == 1


async def test_stopping_what_never_ran(house):
    assert await Worker(house.broker, house.topology, [define(fine)]).stop() is False


async def test_nodes_have_names_of_their_own(house):
    with pytest.raises(UsageError, match="'work' is there twice"):
        Worker(house.broker, house.topology, [define(fine), define(fine)])
    with pytest.raises(UsageError, match="without nodes"):
        Worker(house.broker, house.topology, [])


def test_a_workers_name_says_where_it_is():
    import os

    assert f"-{os.getpid()}-" in worker_name()
    assert worker_name() != worker_name()


async def test_each_task_sees_its_own_inputs(house):
    from flowkit import Node

    node = Node("work")

    @node.main
    async def main():
        before = node.get_inputs()["n"], node.get_id()
        await asyncio.sleep(0)
        assert (node.get_inputs()["n"], node.get_id()) == before
        return [], {"n": before[0], "id": str(before[1])}, ""

    async with house.worker(node.definition):
        await house.send(*[task(inputs={"n": n}, id=UUID(int=n)) for n in range(50)])
        for result in await house.results(50):
            assert result.outputs == {"n": result.task_id.int, "id": str(result.task_id)}

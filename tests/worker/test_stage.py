"""The nodes' code in a thread of its own: what it does to that loop harms nobody else."""

import asyncio
import contextlib
import logging
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import tenacity

from flowkit.errors import PublishError
from flowkit.log import Logger
from flowkit.node import Node
from flowkit.worker import Worker
from flowkit.worker.stage import Job, OwnThread, SameLoop

from . import tasks
from .tasks import define, lease, task


@asynccontextmanager
async def stage():
    made = OwnThread()
    made.begin()
    try:
        yield made
    finally:
        made.end()


@dataclass
class Running:
    job: Job
    ended: asyncio.Future


def start(there, make, name) -> Running:
    ended = asyncio.get_running_loop().create_future()
    return Running(there.start(make, name, ended.set_result), ended)


async def run(there, make, name):
    """What it returns or raises."""
    return (await start(there, make, name).ended).result()


@pytest.fixture
def block():
    """A main that blocks its loop until the test lets it go; and what tells that it does."""
    let_go, blocked = threading.Event(), threading.Event()

    async def main():
        blocked.set()
        let_go.wait(20)
        return [], {}, "at last"

    main.let_go, main.blocked = let_go, blocked
    yield main
    let_go.set()


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def fine():
    return [], {"thread": threading.current_thread().name}, ""


async def test_results_errors_and_names_come_through():
    async def name():
        return asyncio.current_task().get_name(), threading.current_thread().name

    async def fails():
        raise KeyError("x")

    async with stage() as there:
        assert await run(there, name, "mine") == ("mine", "flowkit-nodes")
        with pytest.raises(KeyError):
            await run(there, fails, "")
        assert await asyncio.gather(*(run(there, name, str(n)) for n in range(500))) == [
            (str(n), "flowkit-nodes") for n in range(500)
        ]


async def test_what_is_cancelled_tells_when_it_has_ended():
    begun, ended = threading.Event(), []

    async def main():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    async with stage() as there:
        running = start(there, main, "")
        await until(begun)
        running.job.cancel()
        assert (await running.ended).cancelled()
        assert ended == [True]


async def test_one_may_be_cancelled_as_soon_as_it_is_started():
    async with stage() as there:
        running = start(there, asyncio.Event().wait, "")
        running.job.cancel()
        assert (await running.ended).cancelled()


async def test_one_that_cancels_itself_is_cancelled():
    async def main():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async with stage() as there:
        with pytest.raises(asyncio.CancelledError):
            await run(there, main, "")


async def test_what_still_runs_at_the_end_is_cancelled():
    begun, ended = threading.Event(), threading.Event()

    async def main():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with stage() as there:
        running = start(there, main, "")
        await until(begun)
    assert ended.is_set()
    assert (await running.ended).cancelled()


@pytest.mark.parametrize("ends", [SystemExit("enough"), KeyboardInterrupt()])
async def test_a_task_beside_main_that_exits_ends_itself_and_nothing_else(ends, caplog):
    begun, gone_on = threading.Event(), asyncio.Event()

    async def exits():
        raise ends

    async def waits_for_it():
        await asyncio.create_task(exits())

    async def other():
        begun.set()
        await gone_on.wait()
        return "went on"

    async with stage() as there:
        running = asyncio.create_task(run(there, other, ""))
        await until(begun)
        with pytest.raises(type(ends)):
            await run(there, waits_for_it, "")

        async def go_on():
            gone_on.set()

        await run(there, go_on, "")
        assert await running == "went on"
    assert "ends that task alone" in caplog.text


async def test_a_main_that_stops_its_loop_stops_nothing():
    async def stops():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return "still here"

    async with stage() as there:
        assert await run(there, stops, "") == "still here"


async def test_of_a_blocked_loop_it_is_told_while_it_is_blocked_and_by_whom(block, caplog):
    caplog.set_level(logging.INFO)
    async with stage() as there:
        watching = asyncio.create_task(there.watch())
        running = asyncio.create_task(run(there, block, "node slow, task 7"))
        async with asyncio.timeout(10):
            while "blocks the loop" not in caplog.text:
                await asyncio.sleep(0.05)
        assert "node slow, task 7, at " in caplog.text
        assert f"{__file__}:" in caplog.text
        assert " in main, blocks the loop of the nodes, for 1 s already. Move blocking calls into" in caplog.text
        block.let_go.set()
        await running
        async with asyncio.timeout(10):
            while "turns again" not in caplog.text:
                await asyncio.sleep(0.05)
        watching.cancel()


# In a worker


async def test_a_worker_announces_itself_while_a_node_blocks(house, block):
    async with house.worker(define(block, "blocks"), define(fine), stage=OwnThread(), heartbeat=0.05):
        await house.send(task("blocks"))
        await until(block.blocked)
        later = await house.receive(house.topology.workers, 20)
        assert b'"blocks"' in later[-1].body
        block.let_go.set()
        assert (await house.result()).message == "at last"


async def test_a_worker_stops_in_time_while_a_node_blocks(house, block):
    async with house.worker(define(block), stage=OwnThread(), drain_timeout=0.05) as worker:
        await house.send(task())
        await until(block.blocked)
        begun = time.monotonic()
        assert await worker.stop() is True
        assert time.monotonic() - begun < 5
    assert await house.left() == 1, "it runs again elsewhere"


async def test_a_worker_that_cannot_go_on_says_so_while_a_node_blocks(house, block, monkeypatch):
    publish = house.broker.publish

    async def refuse_results(messages):
        refused = any(message.type == "flowkit.result" for message in messages)
        return [PublishError("ACCESS_REFUSED")] if refused else await publish(messages)

    monkeypatch.setattr(house.broker, "publish", refuse_results)
    worker = Worker(house.broker, house.topology, [define(block, concurrency=1)], stage=OwnThread(), heartbeat=3600)
    running = asyncio.create_task(worker.run())
    await worker.ready()
    running_one = task()
    await house.send(running_one, task(run_id="run-2"))
    await until(block.blocked)
    await lease(house, running_one, worker.name)
    await tasks.until(lambda: worker.running == 2)
    await house.control(kind="cancel", run_id="run-2")  # it waits for its turn, and is given back: by a result
    done, _ = await asyncio.wait([running], timeout=10)
    block.let_go.set()
    assert done, "it still waits for the node that blocks"
    with pytest.raises(PublishError, match="ACCESS_REFUSED"):
        await running


async def test_cancel_reaches_a_node_in_its_thread(house):
    begun, ended = threading.Event(), threading.Event()

    async def main():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with house.worker(define(main), stage=OwnThread()):
        mine = task()
        await house.send(mine)
        await until(begun)
        await house.control(kind="cancel", run_id=mine.run_id)
        assert (await house.result()).status == "returned"
        await until(ended)


async def test_timeouts_retries_inputs_and_logs_work_there(house):
    node = Node("work", wait=tenacity.wait_fixed(7), timeout=0.05)
    logger = Logger(node)

    @node.main
    async def main():
        number = node.get_inputs()["n"]
        await logger.log_with_context("INFO", threading.current_thread().name, {"n": number})
        await logger.flush()
        if number == 1:
            raise OSError("again")
        await asyncio.Event().wait()

    async with house.worker(node.definition, stage=OwnThread()):
        for number, error in ((1, "OSError"), (2, "TimeoutError")):
            await house.send(task(inputs={"n": number}))
            result = await house.result()
            assert (result.status, result.retry_in, result.error.type) == ("retry", 7, error)
        assert [(line.message, line.context) for line in await house.logs(2)] == [
            ("flowkit-nodes", {"n": 1}),
            ("flowkit-nodes", {"n": 2}),
        ]


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
async def test_of_code_that_blocks_beyond_its_timeout_both_logs_tell_at_its_time(house, stage, caplog):
    told = threading.Event()

    class Tells(logging.Handler):
        def emit(self, record):
            if "beyond its timeout" in record.getMessage():
                told.set()

    async def main():
        told.wait()  # until it is told, while it blocks
        return [], {}, "too late"

    logger = logging.getLogger("flowkit.worker.execute")
    logger.addHandler(handler := Tells())
    try:
        async with house.worker(define(main, timeout=0.05), stage=stage()):
            await house.send(task())
            result = await house.result()
            (line,) = await house.logs()
    finally:
        logger.removeHandler(handler)
    assert (result.status, result.error.type) == ("failed", "TimeoutError")
    assert line.level == "WARNING"
    assert line.message.startswith("main of node 'work' goes on beyond its timeout of 0.05 s: it blocks, at ")
    assert f"{__file__}:" in line.message
    async with asyncio.timeout(20):
        while line.message not in caplog.text:  # its thread has called one handler, and caplog's may be the next one
            await asyncio.sleep(0.01)
    assert str(result.task_id) in caplog.text


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
async def test_of_a_main_that_swallows_its_timeout_both_logs_tell(house, stage, caplog):
    told = asyncio.Event()
    here = asyncio.get_running_loop()

    async def main():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        while "beyond its timeout" not in caplog.text:
            await asyncio.sleep(0.05)
        here.call_soon_threadsafe(told.set)
        return [], {}, "too late"

    async with house.worker(define(main, timeout=0.05), stage=stage()):
        await house.send(task())
        await told.wait()
        assert (await house.result()).error.type == "TimeoutError"
        (line,) = await house.logs()
    assert line.message.startswith("main of node 'work' goes on beyond its timeout of 0.05 s: it ")

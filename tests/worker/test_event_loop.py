"""Loops that run author code: what it may do there, and that they end."""

import asyncio
import contextlib
import contextvars
import logging
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import uvloop

from flowkit.log import Logger
from flowkit.node import Node
from flowkit.worker import event_loop
from flowkit.worker.process_exit import busy_threads
from flowkit.worker.stage import OwnThread

from .tasks import task

number = contextvars.ContextVar("number", default=0)
LOOPS = pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_threads_of_executors_have_the_context_of_whoever_called(make):
    async def main():
        number.set(7)
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as own:
            return [
                await loop.run_in_executor(None, number.get),
                await loop.run_in_executor(own, number.get),
                await asyncio.to_thread(number.get),
            ]

    assert event_loop.run(main(), make) == [7, 7, 7]


def test_an_executor_of_processes_gets_what_can_be_pickled():
    async def main():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, pow, 2, 10)

    assert event_loop.run(main()) == 1024


@LOOPS
@pytest.mark.parametrize("ends", [SystemExit(3), KeyboardInterrupt()])
def test_a_task_or_a_callback_beside_main_that_exits_ends_itself_and_nothing_else(make, ends, caplog):
    async def exits():
        raise ends

    def exits_too():
        raise ends

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(exits_too)
        beside = loop.create_task(exits())
        with pytest.raises(type(ends)):
            await loop.create_task(exits())
        del beside
        return "went on"

    assert event_loop.run(main(), make) == "went on"
    assert "which ends that task alone" in caplog.text
    assert "never retrieved" not in caplog.text


def test_a_signal_handler_that_exits_ends_the_loop():
    def exits(number, frame):
        raise SystemExit(number)

    async def main():
        asyncio.get_running_loop().call_soon(
            threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1)).start
        )
        await asyncio.Event().wait()

    before = signal.signal(signal.SIGUSR1, exits)
    try:
        with pytest.raises(SystemExit):
            event_loop.run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_main_that_exits_exits():
    async def main():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        event_loop.run(main())


@LOOPS
def test_a_main_that_stops_the_loop_stops_nothing(make):
    async def main():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return "still here"

    assert event_loop.run(main(), make) == "still here"


@LOOPS
def test_what_does_not_end_holds_nothing_up(make, caplog):
    let_go, inside, left = threading.Event(), threading.Event(), []

    def block():
        inside.set()
        let_go.wait()

    async def swallows():
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def main():
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, block)
        left.append(loop.create_task(swallows(), name="one that swallows"))
        while not inside.is_set():
            await asyncio.sleep(0)
        return "done"

    assert event_loop.run(main(), make) == "done"
    assert "one that swallows does not end when it is cancelled" in caplog.text
    (thread,) = busy_threads()
    let_go.set()
    thread.join()


def test_threads_of_an_executor_that_have_nothing_to_do_are_not_busy():
    with ThreadPoolExecutor(2) as pool, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert pool.submit(pow, 2, 3).result() == processes.submit(pow, 2, 3).result() == 8
        assert busy_threads() == []


async def test_a_node_reads_its_inputs_and_logs_in_every_thread(house):
    node = Node("work")

    def in_thread():
        logging.getLogger("elsewhere").warning("said in a thread")
        return node.get_inputs()["n"]

    @node.main
    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as own:
            numbers = [await loop.run_in_executor(pool, in_thread) for pool in (None, own)]
        await Logger(node).info("done")
        return [], {"numbers": numbers}, ""

    async with house.worker(node.definition, stage=OwnThread()):
        await house.send(task(inputs={"n": 3}))
        assert (await house.result()).outputs == {"numbers": [3, 3]}

"""Processes that are told to end while author code blocks, in every way in which it can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from flowkit.client import Client
from flowkit.errors import RunFailed
from flowkit.worker.process_exit import INTERPRETER
from tests.e2e.processes import Command, Shell

BLOCKS = """
import asyncio, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
FOREVER = 600

def begun(text="begun"):
    sys.stderr.write(text + "\\n")
    sys.stderr.flush()

def sleep():
    begun()
    time.sleep(FOREVER)

def program():
    return [sys.executable, "-c", "import sys, time; print('begun', file=sys.stderr, flush=True); time.sleep(600)"]

async def awaits():
    begun()
    await asyncio.sleep(FOREVER)

async def to_thread():
    await asyncio.to_thread(sleep)

async def executor():
    await asyncio.get_running_loop().run_in_executor(None, sleep)

async def own_executor():
    with ThreadPoolExecutor() as pool:
        await asyncio.get_running_loop().run_in_executor(pool, sleep)

async def own_thread():
    threading.Thread(target=sleep).start()
    await asyncio.sleep(FOREVER)

async def process_executor():
    with ProcessPoolExecutor(1) as pool:
        begun()
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, FOREVER)

async def subprocess_awaited():
    await (await asyncio.create_subprocess_exec(*program())).wait()

async def subprocess_in_thread():
    await asyncio.to_thread(subprocess.run, program())

async def loop_blocked():
    sleep()

async def spins():
    begun()
    while True:
        pass

async def swallows():
    begun()
    while True:
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            pass
"""
NODE = """
import blocks
from flowkit import Node

node = Node({options})
node.register_main(blocks.{how})
node.run()
"""
# Those of one list block in one process.
WAYS = [
    ["awaits", "swallows", "subprocess_awaited"],
    ["to_thread", "executor", "own_thread", "subprocess_in_thread"],
    ["own_executor", "process_executor"],
    ["loop_blocked"],
    ["spins"],
]
FORKS = """
import asyncio, multiprocessing, os, signal, time
from flowkit import Node

node = Node()

@node.main
async def main():
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()

    def child():
        ready.set()
        time.sleep(600)

    process = fork.Process(target=child)
    process.start()
    await asyncio.to_thread(ready.wait)
    os.kill(process.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
    process.terminate()
    await asyncio.to_thread(process.join)
    return [], {"exit": process.exitcode}, "done"
"""
WORKS = """
from flowkit import Node
node = Node("registers")

@node.main
async def main():
    return [], {}, "done"

node.run()
"""
DRAIN = 0.3
SLACK = 4.0  # seconds; about two on a machine with nothing else to do


@pytest.fixture
def nodes(shell, tmp_path):
    folder = tmp_path / "nodes"
    folder.mkdir()
    (folder / "blocks.py").write_text(BLOCKS)
    for how in (how for ways in WAYS for how in ways):
        (folder / f"{how}.py").write_text(NODE.format(how=how, options=""))
    shell.environment["FLOWKIT_NODES_DIR"] = str(folder)
    shell.environment["PYTHONPATH"] = str(folder)
    shell.environment.pop("XDG_RUNTIME_DIR", None)
    return folder


async def gone(group: int) -> None:
    """Wait until no process is left in a process group but those that nobody has buried."""
    async with asyncio.timeout(5):
        while _members(group):
            await asyncio.sleep(0.02)


def _members(group: int) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, of = (Path(entry) / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(of) == group and state != "Z":
                    found.append(int(entry.name))
    return found


async def begin(shell: Shell, *nodes: str, options: Sequence[str] = ()) -> Command:
    """A worker in which a task of each node has begun to block."""
    worker = await shell.worker(*nodes, options=options)
    async with Client(
        shell.environment["FLOWKIT_BROKER_URL"], namespace=shell.environment["FLOWKIT_NAMESPACE"]
    ) as starts:
        for node in nodes:
            await starts.start(node)
    await worker.says("begun", times=len(nodes))
    return worker


async def test_a_worker_ends_within_its_drain_timeout(shell, nodes):
    await shell.coordinator()

    async def end(ways):
        worker = await begin(shell, *ways, options=("--drain-timeout", str(DRAIN)))
        told = time.monotonic()
        assert await worker.terminate() == 1, worker.said
        assert time.monotonic() - told < DRAIN + SLACK, worker.said
        left = "1 task abandoned: it" if len(ways) == 1 else f"{len(ways)} tasks abandoned: they"
        assert f"{left} will run again" in worker.said
        assert "Traceback" not in worker.said
        await gone(worker.process.pid)

    await asyncio.gather(*map(end, WAYS))


async def test_what_a_node_registers_for_the_exit_holds_up_no_worker(shell, nodes):
    (nodes / "registers.py").write_text("import atexit, time\natexit.register(time.sleep, 600)\n" + WORKS)
    worker = await shell.worker("registers")
    told = time.monotonic()
    assert await worker.terminate() == 0, worker.said
    assert time.monotonic() - told < INTERPRETER + SLACK, worker.said
    assert "Timeout" not in worker.said


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_the_second_signal_ends_it_at_once(shell, nodes, processes):
    await shell.coordinator()

    async def end(ways):
        worker = await begin(shell, *ways, options=("--drain-timeout", "600", "--processes", processes))
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("once more")
        told = time.monotonic()
        assert await worker.terminate() == 1, worker.said
        assert time.monotonic() - told < SLACK, worker.said
        assert "Traceback" not in worker.said
        await gone(worker.process.pid)

    await asyncio.gather(*map(end, WAYS[1:3]))


async def test_a_thread_that_its_timeout_left_behind_holds_nothing_up(shell, nodes):
    await shell.coordinator()
    (nodes / "timed.py").write_text(NODE.format(how="to_thread", options="timeout=0.1"))
    worker = await begin(shell, "timed")
    async with Client(
        shell.environment["FLOWKIT_BROKER_URL"], namespace=shell.environment["FLOWKIT_NAMESPACE"]
    ) as starts:
        run = await starts.start("timed")
        with pytest.raises(RunFailed, match=r"no result within 0\.1 s"):
            await run.outputs(timeout=20)
    told = time.monotonic()
    assert await worker.terminate() == 0, "nothing will run again"
    assert time.monotonic() - told < SLACK
    assert re.search(r"ended without waiting for thread \w+, at \S+blocks.py:\d+ in sleep", worker.said)


async def test_a_process_that_a_node_forks_keeps_its_signals_to_itself(shell, nodes):
    """It has the worker's handlers, and the same socket behind them."""
    await shell.coordinator()
    (nodes / "forks.py").write_text(FORKS)
    worker = await shell.worker("forks", options=("--drain-timeout", "600"))
    async with Client(
        shell.environment["FLOWKIT_BROKER_URL"], namespace=shell.environment["FLOWKIT_NAMESPACE"]
    ) as starts:
        outputs = await (await starts.start("forks")).outputs(timeout=20)
        assert outputs == {"exit": -signal.SIGTERM}
        assert "finishing" not in worker.said
        assert "stopping now" not in worker.said
    assert await worker.terminate() == 0

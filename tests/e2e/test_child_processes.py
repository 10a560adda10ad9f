"""What node files define travels to child processes and back, in the three ways to run a node."""

from __future__ import annotations

import json

import pytest

POOLS = """
import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from beside import twice
from flowkit import Node

@dataclass
class Point:
    x: int

def move(point):
    return Point(twice(point.x)), os.getpid()

def put(queue, point):
    queue.put(move(point))

def start():
    node.run()

node = Node("pools")

@node.main
async def main():
    seen = {}
    for method in ("fork", "spawn", "forkserver"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            pooled, pid = await asyncio.get_running_loop().run_in_executor(pool, move, Point(3))
        assert type(pooled) is Point and pid != os.getpid()
        seen[method] = pooled.x
    spawning = multiprocessing.get_context("spawn")
    queue = spawning.Queue()
    process = spawning.Process(target=put, args=(queue, Point(4)))
    process.start()
    single, _ = await asyncio.to_thread(queue.get, timeout=30)
    process.join()
    endless = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    endless.start()
    endless.terminate()
    endless.join(20)
    seen |= {"single": single.x, "codes": [process.exitcode, endless.exitcode]}
    return [], seen, "done"

start()
"""
SEEN = {"fork": 6, "spawn": 6, "forkserver": 6, "single": 8, "codes": [0, -15]}
ID = "123e4567-e89b-42d3-a456-426614174000"


@pytest.fixture
def folder(shell):
    (shell.folder / "nodes").mkdir()
    (shell.folder / "nodes" / "pools.py").write_text(POOLS)
    (shell.folder / "nodes" / "beside.py").write_text("def twice(number):\n    return 2 * number\n")
    shell.environment["FLOWKIT_NODES_DIR"] = "nodes"
    return shell.folder


@pytest.mark.slow
async def test_under_a_worker(shell, folder):
    await shell.coordinator()
    worker = await shell.worker("pools")
    code, out, said = await shell.call("start", "pools", "--id", "r", "--wait", timeout=50)
    assert (code, json.loads(out.splitlines()[-1])) == (0, SEEN), said + worker.said
    assert "SIGTERM" not in worker.said, "a signal to a child is none to the worker"
    assert await worker.terminate() == 0


@pytest.mark.slow
async def test_under_run(shell, folder):
    code, out, said = await shell.call("run", "pools", timeout=50)
    assert (code, out and json.loads(out)) == (0, SEEN), said


@pytest.mark.slow
async def test_as_a_script(shell, folder):
    (folder / "input.json").write_text("{}")
    script = await shell.python("nodes/pools.py", "input.json", ID, "-", "pools")
    code, out = await script.result(50)
    assert (code, out and json.loads(out)["outputs"]) == (0, SEEN), script.said

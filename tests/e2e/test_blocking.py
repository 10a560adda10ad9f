"""A node that blocks its loop, in a worker process on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import time

BLOCKS = """
import time
from pathlib import Path
from flowkit import Node

node = Node("blocks")

@node.main
async def main():
    with Path("begun").open("a") as file:
        print("once", file=file)
    time.sleep(node.get_inputs()["seconds"])
    return [], {}, "done"
"""
TWO_HEARTBEATS = 5  # seconds: with one each second a broker gives a silent connection up after two or three


async def test_it_costs_no_heartbeat(shell):
    (shell.folder / "blocks.py").write_text(BLOCKS)
    shell.environment["FLOWKIT_HEARTBEAT"] = "1"
    await shell.coordinator()
    worker = await shell.worker("./blocks.py")
    code, _, said = await shell.call("start", "blocks", "-F", f"seconds={TWO_HEARTBEATS}", "--wait", timeout=50)
    assert code == 0, said
    assert (shell.folder / "begun").read_text() == "once\n"
    assert "node blocks, task " in worker.said
    assert "blocks.py:12 in main, blocks the loop of the nodes, for 1 s already" in worker.said
    assert "lost" not in worker.said


async def test_its_process_ends_when_it_is_told_to(shell):
    (shell.folder / "blocks.py").write_text(BLOCKS)
    await shell.coordinator()
    worker = await shell.worker("./blocks.py", options=("--drain-timeout", "0.2"))
    assert (await shell.call("start", "blocks", "-F", "seconds=600", "--id", "r"))[0] == 0
    async with asyncio.timeout(20):
        while not (shell.folder / "begun").exists():
            await asyncio.sleep(0.02)
    told = time.monotonic()
    assert await worker.terminate() == 1
    assert time.monotonic() - told < 15
    assert "1 task abandoned: it will run again" in worker.said

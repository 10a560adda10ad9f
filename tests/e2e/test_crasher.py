"""A node that kills its process over one message, among good ones, with a supervisor that starts the worker again."""

from __future__ import annotations

import asyncio
import json

NODES = """
import asyncio
import os
from flowkit import Node

crasher, good = Node("crasher"), Node("good")

@crasher.main
async def crash():
    await asyncio.sleep(0.05)
    os._exit(7)

@good.main
async def work():
    await asyncio.sleep(0.2)
    return [], {"n": good.get_inputs()["n"]}, "done"
"""
GOOD = 9
DEATHS = 2


async def test_it_is_failed_with_the_reason_and_takes_nobody_along(shell):
    (shell.folder / "nodes.py").write_text(NODES)
    shell.environment["FLOWKIT_MAX_DEATHS"] = str(DEATHS)
    await shell.coordinator()
    deaths: list[int] = []

    async def supervise() -> None:
        """What systemd would do."""
        while True:
            worker = await shell.flowkit("worker", "--node", "./nodes.py")
            deaths.append((await worker.result(timeout=60))[0])

    async def run(node: str, n: int) -> int:
        code, _, _ = await shell.call("start", node, "-F", f"n={n}", "--id", f"{node}-{n}", "--wait", timeout=60)
        return code

    supervising = asyncio.create_task(supervise())
    try:
        codes = await asyncio.gather(run("crasher", 0), *(run("good", n) for n in range(GOOD)))
    finally:
        supervising.cancel()
        await asyncio.wait([supervising])
    assert codes == [1, *[0] * GOOD]
    assert set(deaths) == {7}
    assert len(deaths) > DEATHS
    _, out, _ = await shell.call("runs", "show", "crasher-0", "--json")
    shown = json.loads(out)
    assert shown["status"] == "failed"
    assert f"ProcessDied: {DEATHS} processes died while they ran it" in shown["message"]

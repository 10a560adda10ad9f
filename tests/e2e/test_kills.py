"""Kill -9 in the middle of a workflow, again and again: everything ends, and every join fires once."""

from __future__ import annotations

import asyncio
import json

FAN = """
from flowkit import Gather, Node, Send
node = Node()
async def main():
    n = node.get_inputs()["n"]
    return [Gather([Send("leaf", {"i": i}) for i in range(n)], then="join")], {"n": n}, "out"
node.register_main(main)
node.run()
"""
LEAF = """
import asyncio
from flowkit import Node
node = Node(concurrency=5)
async def main():
    await asyncio.sleep(0.005)
    return [], {"i": node.get_inputs()["i"]}, "leaf"
node.register_main(main)
node.run()
"""
JOIN = """
from flowkit import Node
node = Node()
async def main():
    return [], {"sum": sum(result["i"] for result in node.get_inputs()["results"])}, "join"
node.register_main(main)
node.run()
"""
SIZE = 60


async def test_workers_and_coordinators_are_killed_while_runs_are_under_way(shell):
    for name, text in {"fan": FAN, "leaf": LEAF, "join": JOIN}.items():
        (shell.folder / f"{name}.py").write_text(text)
    paths = ("./fan.py", "./leaf.py", "./join.py")
    coordinator, worker = await shell.coordinator(), await shell.worker(*paths)
    runs = [f"run-{number}" for number in range(3)]
    waiting = [await shell.flowkit("start", "fan", "-F", f"n={SIZE}", "--id", run_id, "--wait") for run_id in runs]
    for _ in range(2):
        await _progress(shell)
        await worker.kill()
        worker = await shell.worker(*paths)
        await coordinator.kill()
        coordinator = await shell.coordinator()
    for run_id, start in zip(runs, waiting, strict=True):
        code, out = await start.result(60)
        assert (code, json.loads(out.partition("\n")[2])) == (0, {"sum": sum(range(SIZE))}), start.said
        shown = json.loads((await shell.call("runs", "show", run_id, "--json"))[1])
        nodes = [task["node"] for task in shown["tasks"]]
        assert (nodes.count("fan"), nodes.count("leaf"), nodes.count("join")) == (1, SIZE, 1)
        assert {task["status"] for task in shown["tasks"]} == {"succeeded"}


async def _progress(shell) -> None:
    """Wait until some more results are in the store."""

    async def done() -> int:
        code, out, _ = await shell.call("runs", "list", "--json")
        if code != 0:
            return 0
        count = 0
        for run in json.loads(out)["runs"]:
            shown = json.loads((await shell.call("runs", "show", run["id"], "--json"))[1])
            count += sum(task["status"] == "succeeded" for task in shown["tasks"])
        return count

    before = await done()
    async with asyncio.timeout(20):
        while await done() == before and before < 3 * (SIZE + 2):
            pass

"""What operators do to runs and messages, on a real RabbitMQ: retry, dead letters, taking a broker over."""

from __future__ import annotations

import json

from flowkit.broker import Outgoing, open_broker
from flowkit.wire.topology import Topology

MENDED = """
from pathlib import Path
from flowkit.node import Node

node = Node("fragile")

@node.main
async def main():
    return [], {"read": Path("there.txt").read_text()}, "read"

node.run()
"""


SLOW = """
import asyncio
from flowkit import Node

node = Node("slow", concurrency=1)

@node.main
async def main():
    await asyncio.sleep(node.get_inputs()["seconds"])
    return [], {}, "slept"

node.run()
"""


async def test_tasks_of_a_busy_worker_are_explained(shell):
    (shell.folder / "slow.py").write_text(SLOW)
    await shell.coordinator()
    worker = await shell.worker(str(shell.folder / "slow.py"))
    for run_id in ("one", "two"):
        assert (await shell.call("start", "slow", "-F", "seconds=60", "--id", run_id))[0] == 0
    found: dict[str, set[str]] = {"one": set(), "two": set()}
    for _ in range(40):
        for run_id, kinds in found.items():
            code, out, _ = await shell.call("runs", "explain", run_id, "--json")
            kinds.update(task["kind"] for task in (json.loads(out)["tasks"] if code == 0 else ()))
        if any("running" in kinds for kinds in found.values()):
            break
    running = [run_id for run_id, kinds in found.items() if "running" in kinds]
    assert len(running) == 1, found
    assert all(kinds <= {"unsent", "taken", "queued", "running"} for kinds in found.values()), found
    code, out, _ = await shell.call("runs", "explain", running[0])
    assert f"→ flowkit logs {running[0]} -f" in out
    await worker.kill()


async def test_a_failed_run_goes_on_when_it_is_retried(shell):
    (shell.folder / "fragile.py").write_text(MENDED)
    await shell.coordinator()
    await shell.worker(str(shell.folder / "fragile.py"))
    start = ("start", "fragile", "--id", "r", "--wait")
    code, _, said = await shell.call(*start)
    assert (code, "FileNotFoundError" in said) == (1, True)
    code, out, _ = await shell.call("runs", "explain", "r")
    assert "→ flowkit runs retry r" in out

    (shell.folder / "there.txt").write_text("here")
    code, _, said = await shell.call("runs", "retry", "--where", "status=failed", "--since", "1h")
    assert code == 0, said
    assert "1 run to retry\nrun r is " in said
    code, out, said = await shell.call(*start)
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"read": "here"}), said


async def test_a_dead_letter_is_found_and_replayed(shell, rabbitmq_url, namespace):
    topology = Topology(namespace)
    await shell.coordinator()
    broker = open_broker(rabbitmq_url)
    try:
        await broker.connect(10)
        letter = Outgoing(topology.name("starts"), "add", b"no json", "flowkit.start")
        assert await broker.publish([letter]) == [None]
    finally:
        await broker.close()
    found: list[dict] = []
    for _ in range(40):
        code, out, _ = await shell.call("dead", "list", "--json")
        found = json.loads(out)["dead"]
        if found:
            break
    (one,) = found
    assert (one["queue"], one["bytes"], one["properties"]["type"]) == (topology.starts.name, 7, "flowkit.start")
    code, out, _ = await shell.call("dead", "show", str(one["id"]))
    assert (code, out.splitlines()[-1]) == (0, "no json")
    code, _, said = await shell.call("dead", "replay", str(one["id"]))
    assert code == 0, said
    for _ in range(40):  # nothing has changed, so it fails again: a new letter
        code, out, _ = await shell.call("dead", "list", "--json")
        if [letter["id"] for letter in json.loads(out)["dead"]] not in ([], [one["id"]]):
            break
    else:
        raise AssertionError(out)
    assert (await shell.call("dead", "discard", "--all"))[0] == 0
    assert json.loads((await shell.call("dead", "list", "--json"))[1])["total"] == 0


async def test_another_stores_broker_is_taken_over_when_one_says_so(shell):
    first = await shell.coordinator()
    assert await first.terminate() == 0
    other = ("--store", f"sqlite:///{shell.folder}/other.db")
    code, _, said = await shell.call("coordinator", *other)
    assert (code, "flowkit coordinator --take-over" in said) == (6, True), said
    second = await shell.coordinator(*other, "--take-over")
    assert await second.terminate() == 0
    third = await shell.coordinator(*other)
    assert await third.terminate() == 0

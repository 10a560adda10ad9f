"""A worker of an older version beside a new coordinator: the least of version 1, and nothing else on the wire."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aio_pika

from tests.e2e import foreign
from tests.e2e.processes import Shell

GOLDEN = Path(__file__).parents[1] / "wire" / "golden" / "v1"


async def test_an_older_worker_and_starter_are_understood(shell: Shell, rabbitmq_url: str, namespace: str) -> None:
    await shell.coordinator()
    url, ns = rabbitmq_url, namespace
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for exchange in ("workers", "starts"):
            file = GOLDEN / f"{exchange}.json"
            await (await channel.get_exchange(f"{ns}.{exchange}")).publish(
                aio_pika.Message(file.read_bytes()), "double"
            )
        code, out, _ = await shell.call("start", "double", "-F", "n=4", "--id", "second")
        assert (code, out.strip()) == (0, "second")
        await _queue(shell, "double")
        await asyncio.wait_for(foreign.work(url, ns, "double", 2), 30)
        for run, doubled in (("older-1", 6), ("second", 8)):
            code, out, said = await shell.call("start", "double", "-F", f"n={doubled // 2}", "--id", run, "--wait")
            assert (code, json.loads(out.partition("\n")[2])) == (0, {"doubled": doubled}), said
        shown = json.loads((await shell.call("runs", "show", "second", "--json"))[1])
        assert [task["status"] for task in shown["tasks"]] == ["succeeded"]


async def test_unknown_fields_are_ignored_and_an_unknown_version_is_a_dead_letter(
    shell: Shell, rabbitmq_url: str, namespace: str
) -> None:
    await shell.coordinator()
    newer = {"node": "double", "inputs": {"n": 1}, "run_id": "newer", "colour": "blue", "nested": {"x": [1]}}
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        starts = await channel.get_exchange(f"{namespace}.starts")
        await starts.publish(aio_pika.Message(json.dumps(newer).encode()), "double")
        await _queue(shell, "double")
        queue = await channel.get_queue(f"{namespace}.tasks.double")
        async with asyncio.timeout(20), queue.iterator() as deliveries:
            delivery = await anext(deliveries)
            task = json.loads(delivery.body)
            least = {"task_id": task["task_id"], "run_id": "newer", "outputs": {"doubled": 2}, "mood": {"good": True}}
            results = await channel.get_exchange(f"{namespace}.results")
            await results.publish(aio_pika.Message(json.dumps(least | {"v": 2}).encode()), "double.succeeded")
            letters = await _dead(shell)
            await results.publish(aio_pika.Message(json.dumps(least).encode()), "double.succeeded")
            await delivery.ack()
    assert [letter["reason"] for letter in letters] == ["unknown-version"]
    code, out, said = await shell.call("start", "double", "-F", "n=1", "--id", "newer", "--wait")
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"doubled": 2}), said


async def _queue(shell: Shell, node: str) -> None:
    """Wait until the coordinator has declared the node's queue: it has sent a task there."""
    async with asyncio.timeout(20):
        while f'"{node}"' not in (await shell.call("runs", "list", "--json"))[1]:
            pass


async def _dead(shell: Shell) -> list[dict[str, str]]:
    async with asyncio.timeout(20):
        while not (found := json.loads((await shell.call("dead", "list", "--json"))[1])["dead"]):
            pass
    return list(found)

"""The examples of the original API, unchanged: as a script, and in a worker."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flowkit import loading
from flowkit.broker import Outgoing
from flowkit.broker.memory import MemoryBroker
from flowkit.wire.messages import Log, Result, Task, decode, decode_many
from flowkit.wire.topology import Topology
from flowkit.worker import Worker

FOLDER = Path(__file__).parents[1] / "examples"
ID = UUID("123e4567-e89b-42d3-a456-426614174000")

EXAMPLES = [
    ("quick_start", {"a": 1, "b": 2}, "succeeded", [], {"result": 3}, "Success", ["INFO Result: 3"]),
    (
        "complete_example",
        {"items": [1, 2]},
        "succeeded",
        ["report", "store"],
        {"results": [2, 4], "count": 2},
        "Processing complete",
        [
            f"INFO Node {ID} started",
            "DEBUG Processing item 1 of 2",
            "DEBUG Processing item 2 of 2",
            "INFO Processed 2 items",
        ],
    ),
    (
        "complete_example",
        {},
        "succeeded",
        [],
        {},
        "Validation failed",
        [f"INFO Node {ID} started", "WARNING No items to process"],
    ),
    ("error_handling", {"a": 6, "b": 2}, "succeeded", [], {"result": 3.0}, "Success", []),
    (
        "error_handling",
        {"a": 1, "b": 0},
        "succeeded",
        ["error_handler"],
        {"error": "division by zero"},
        "Division by zero",
        ["ERROR Division failed: division by zero"],
    ),
    ("error_handling", {"a": 1}, "failed", [], {}, "KeyError: 'b'", ["ERROR Missing input: 'b'"]),
    (
        "logging_with_context",
        {"user_id": 7},
        "succeeded",
        [],
        {"logged": True},
        "Logged",
        ["INFO User logged in", "WARNING No context at all", "ERROR An error occurred"],
    ),
]
example = pytest.mark.parametrize(("name", "inputs", "status", "nodes", "outputs", "message", "lines"), EXAMPLES)


@example
def test_as_a_script(tmp_path, name, inputs, status, nodes, outputs, message, lines):
    file = tmp_path / "input.json"
    file.write_text(json.dumps(inputs))
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), str(file), str(ID), "-", name],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"status": status, "nodes": nodes, "outputs": outputs, "message": message}
    assert done.returncode == (0 if status == "succeeded" else 1)
    said = done.stderr
    for line in lines:
        level, _, text = line.partition(" ")
        assert f" {level} {name}: {text}" in said
    if name == "logging_with_context":
        assert '{"user_id":7,"ip":"192.0.2.1"}' in said
        assert "ValueError: something went wrong" in said


@example
async def test_in_a_worker(name, inputs, status, nodes, outputs, message, lines):
    broker, topology = MemoryBroker(), Topology()
    worker = Worker(broker, topology, loading.load(name, FOLDER), heartbeat=3600, log_linger=0)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await worker.ready()
        task = Task(task_id=ID, run_id=str(uuid4()), node=name, inputs=inputs)
        await broker.publish([Outgoing(topology.name("tasks"), name, task.encode(), Task.TYPE)])
        results = broker.consume(topology.results, prefetch=10)
        result = decode(Result, (await results.receive(1))[0].body)
        assert (result.status, list(result.nodes), result.outputs) == (status, nodes, outputs)
        assert (result.message, result.task_id) == (message, ID)
        assert await worker.stop() is False
    logs, seen = broker.consume(topology.logs, prefetch=100, offset="first"), []
    while len(seen) < len(lines):
        for delivery in await logs.receive(100):
            seen += decode_many(Log, delivery.body)
    assert [f"{line.level} {line.message}" for line in seen] == lines
    assert {line.task_id for line in seen} <= {ID}
    await broker.close()

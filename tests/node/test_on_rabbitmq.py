"""A node file on a real RabbitMQ: as a script that reports there, and in a worker."""

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from flowkit import loading
from flowkit.broker import Outgoing, open_broker
from flowkit.wire.messages import Log, Result, Start, Task, decode, decode_many
from flowkit.wire.topology import Topology
from flowkit.worker import Worker

FOLDER = Path(__file__).parents[1] / "examples"


@pytest.fixture
async def broker(rabbitmq_url, namespace):
    broker = open_broker(rabbitmq_url)
    await broker.connect(10)
    await broker.declare(Topology(namespace).standing)
    yield broker
    await broker.close()


async def test_a_script_reports_a_run_whose_first_task_is_done(rabbitmq_url, namespace, broker, tmp_path):
    topology, id = Topology(namespace), uuid4()
    (tmp_path / "input.json").write_text(json.dumps({"a": 1, "b": 2}))
    parts = urlsplit(rabbitmq_url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # the login is in the environment
    script = await asyncio.create_subprocess_exec(
        sys.executable, str(FOLDER / "quick_start.py"), "input.json", str(id), address, "quick_start",
        cwd=tmp_path, env={"FLOWKIT_BROKER_URL": rabbitmq_url, "FLOWKIT_NAMESPACE": namespace},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await script.communicate()
    assert (script.returncode, out, err) == (0, b"", b"")
    (delivery,) = await broker.consume(topology.starts, prefetch=1).receive(1)
    start = decode(Start, delivery.body)
    assert (start.run_id, start.node, start.inputs) == (str(id), "quick_start", {"a": 1, "b": 2})
    assert (start.finished.status, start.finished.outputs) == ("succeeded", {"result": 3})
    (line,) = decode_many(Log, (await broker.consume(topology.logs, prefetch=1, offset="first").receive(1))[0].body)
    assert (line.message, line.run_id, line.task_id) == ("Result: 3", str(id), id)


async def test_a_worker(rabbitmq_url, namespace, broker):
    topology = Topology(namespace)
    own = open_broker(rabbitmq_url)
    worker = Worker(own, topology, loading.load("quick_start", FOLDER), heartbeat=3600, log_linger=0)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await worker.ready()
        assert worker.connected
        tasks = [Task(task_id=uuid4(), run_id="r", node="quick_start", inputs={"a": n, "b": 1}) for n in range(300)]
        name = topology.name("tasks")
        sent = await broker.publish([Outgoing(name, "quick_start", one.encode(), Task.TYPE) for one in tasks])
        assert sent == [None] * 300
        results, outputs = broker.consume(topology.results, prefetch=500), {}
        while len(outputs) < 300:
            for delivery in await results.receive(500):
                outputs |= {result.task_id: result.outputs for result in decode_many(Result, delivery.body)}
        assert outputs == {one.task_id: {"result": one.inputs["a"] + 1} for one in tasks}
        assert await worker.stop() is False
    await own.close()
    assert (await broker.inspect(topology.tasks("quick_start").name)).ready == 0
    await broker.delete(topology.tasks("quick_start").name)

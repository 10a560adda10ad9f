"""Tasks that run longer than the broker waits for an acknowledgement, on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowkit import Node
from flowkit.broker import Outgoing, open_broker
from flowkit.store import open_store
from flowkit.wire import codec
from flowkit.wire.topology import Topology
from flowkit.worker.worker import Worker
from tests.coordinator.house import FAST, House
from tests.e2e.processes import Shell

LEASING = replace(FAST, lease_after=0.2, lease_silence=1.5, relay_after=5)
# A worker whose task ends when there is a file. It announces itself more often than the command line's, and the broker
# notices within seconds when it stands still: a task may have been delivered to it meanwhile.
WORKER = """
import asyncio, sys
from pathlib import Path
from flowkit import Node
from flowkit.broker import open_broker
from flowkit.wire.topology import Topology
from flowkit.worker.current import current
from flowkit.worker.execution import key_of
from flowkit.worker.worker import Worker

node = Node("long")

@node.main
async def main():
    task = current.get().task
    attempt, here = task.attempt, worker._taken.get(key_of(task))
    print("begins attempt", attempt, file=sys.stderr)
    try:
        while here.deliveries:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)  # for the broker to hear of it
        print("acknowledged attempt", attempt, file=sys.stderr)
        while not Path("go").exists():
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        print("interrupted in attempt", attempt, file=sys.stderr)
        raise
    return [], {"attempt": attempt}, ""

async def work(url, namespace, name):
    global worker
    worker = Worker(open_broker(url, heartbeat=1), Topology(namespace), [node.definition], name=name, heartbeat=0.1)
    await worker.run()

asyncio.run(work(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def house_on(url: str, namespace: str, folder: Path) -> AsyncIterator[House]:
    broker, store = open_broker(url), await open_store(f"sqlite:///{folder}/flowkit.db")
    house = House(broker, store, Topology(namespace))
    yield house
    await house.close()
    await store.close()
    await broker.close()


@pytest.fixture
def hasty(private_rabbitmq):
    """A broker that waits for an acknowledgement for a second."""

    def settings(timeout: int, tick: int) -> str:
        values = {"consumer_timeout": timeout, "channel_tick_interval": tick}  # of channels that are opened from now on
        return ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in values.items()) + "."

    private_rabbitmq.ctl("eval", settings(1_000, 250))
    yield private_rabbitmq.url
    private_rabbitmq.ctl("eval", settings(1_800_000, 60_000))


async def test_a_task_longer_than_consumer_timeout_is_run_once_and_finishes_once(hasty, namespace, tmp_path):
    begun, go = [], asyncio.Event()
    node = Node("long", concurrency=3)

    @node.main
    async def main():
        begun.append(node.get_id())
        await go.wait()
        return [], {"ok": True}, ""

    async with house_on(hasty, namespace, tmp_path) as house:
        brokers = [open_broker(hasty), open_broker(hasty)]  # what one loses, the other one gets
        workers = [Worker(broker, house.topology, [node.definition], heartbeat=0.1) for broker in brokers]
        async with house.coordinator(pace=LEASING):
            working = [asyncio.create_task(worker.run()) for worker in workers]
            for worker in workers:
                await worker.ready()
            for number in range(3):
                await house.start("long", f"r{number}")
            # Somebody who does not acknowledge either, and has no lease: what the broker takes from him, twice, it
            # would have taken from them.
            witness = house.broker.consume(house.topology.tasks("witness"), prefetch=1, own_connection=True)
            await house.broker.declare([house.topology.tasks("witness")])
            sent = Outgoing(house.topology.name("tasks"), "witness", b"{}", "flowkit.task")
            assert await house.broker.publish([sent]) == [None]
            for _ in range(2):
                assert await witness.receive(1)
            (again,) = await witness.receive(1)
            assert again.redelivered
            await witness.ack([again])
            await witness.close()
            go.set()
            for number in range(3):
                assert codec.loads((await house.run_ended(f"r{number}")).outputs) == {"ok": True}
                (row,) = await house.rows(f"r{number}")
                assert (row.attempt, row.deaths) == (1, 0)
                assert await house.store.query(lambda queries, n=number: queries.superseded(f"r{n}")) == []
            assert [await worker.stop() for worker in workers] == [False, False]
            await asyncio.gather(*working)
        assert len(begun) == len(set(begun)) == 3
        state = await house.broker.inspect(house.topology.tasks("long").name)
        assert state.ready == 0
        for broker in brokers:
            await broker.close()


@pytest.fixture
async def leased(rabbitmq_url, namespace, tmp_path):
    """A run whose task has been leased to a worker process, and what starts another one."""
    shell = Shell(tmp_path)

    async def worker(name):
        return await shell.python("-c", WORKER, rabbitmq_url, namespace, name)

    async with house_on(rabbitmq_url, namespace, tmp_path) as house, house.coordinator(pace=LEASING):
        await house.start("long", "r1")
        first = await worker("w1")
        await first.says("begins attempt 1")
        await first.says("acknowledged attempt 1")
        assert (await house.rows("r1"))[0].leased_until is not None
        yield house, first, worker, tmp_path / "go"
    await shell.close()


async def test_the_task_of_a_killed_worker_runs_again_after_the_silence(leased):
    house, first, worker, go = leased
    second = await worker("w2")
    await first.kill()
    await second.says("begins attempt 2")
    go.touch()
    run = await house.run_ended("r1")
    (row,) = await house.rows("r1")
    assert (codec.loads(run.outputs), row.attempt, row.deaths, row.worker) == ({"attempt": 2}, 2, 1, "w2")
    assert await second.terminate() != 0  # by the signal: this worker knows no drain


async def test_a_stopped_worker_that_wakes_up_is_told_and_changes_nothing(leased):
    house, first, worker, go = leased
    first.process.send_signal(signal.SIGSTOP)
    second = await worker("w2")
    await second.says("begins attempt 2")
    first.process.send_signal(signal.SIGCONT)
    await first.says("interrupted in attempt 1")
    go.touch()
    assert codec.loads((await house.run_ended("r1")).outputs) == {"attempt": 2}
    late = await house.until(lambda queries: queries.superseded("r1"), "what the first one said")
    assert (1, "returned") in [(attempt, status) for _, attempt, status, _, _ in late]
    (row,) = await house.rows("r1")
    assert (row.status, row.attempt, row.deaths) == ("succeeded", 2, 1)

"""A broker that is low on memory: everybody who asks is told so, and why."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from flowkit import Client
from flowkit.broker import Outgoing, open_broker
from flowkit.broker.memory import MemoryBroker
from flowkit.errors import BrokerBlocked
from flowkit.wire.topology import Topology
from tests.e2e.processes import WORKERS, Shell

SAYS = "accepts no messages: low on memory"


@pytest.mark.timeout(120)
async def test_who_publishes_and_who_asks_is_told_of_an_alarm(private_rabbitmq, namespace, tmp_path, caplog):
    caplog.set_level(logging.INFO, "flowkit.broker")
    environment = {
        "FLOWKIT_BROKER_URL": private_rabbitmq.url, "FLOWKIT_NAMESPACE": namespace, "FLOWKIT_HEARTBEAT": "2",
        "FLOWKIT_STORE_URL": f"sqlite:///{tmp_path}/flowkit.db", "XDG_RUNTIME_DIR": str(tmp_path),
    }  # fmt: skip
    shell = Shell(tmp_path, **environment)
    broker = open_broker(private_rabbitmq.url)
    results = Topology(namespace).name("results")
    try:
        coordinator = await shell.coordinator()
        worker = await shell.worker(str(WORKERS / "add.py"))
        await broker.connect(10)
        assert await broker.find_alarm(5) is None
        await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            assert await broker.find_alarm(10) == "low on memory"
            assert (broker.blocked_reason, broker.connected) == ("low on memory", False)
            waiting = asyncio.create_task(broker.publish([Outgoing(results, "x.y", b"{}", "flowkit.test")]))
            async with Client(private_rabbitmq.url, namespace=namespace, patience=1) as client:
                with pytest.raises(BrokerBlocked, match=SAYS):
                    await client.start("add")
            for process in (coordinator, worker):
                await process.says(SAYS)
            started, doctor = await asyncio.gather(shell.call("start", "add"), shell.call("doctor"))
            assert (started[0], SAYS in started[2]) == (3, True), started
            assert (doctor[0], SAYS in doctor[1]) == (1, True), doctor
            code, out, _ = await shell.call("health", "--ready", "--json")
            told = json.loads(out)["processes"]
            assert code == 1
            assert {(one["kind"], one["ready"], one["blocked"]) for one in told} == {
                ("coordinator", False, "low on memory"), ("worker", False, "low on memory"),
            }  # fmt: skip
            assert not waiting.done()
        finally:
            await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
        async with asyncio.timeout(20):
            assert await waiting == [None]
        for process in (coordinator, worker):
            await process.says("accepts messages again")
            assert process.said.count(SAYS) == 1, "one line, not one for each connection or attempt"
        actions = [one.action for one in caplog.records if getattr(one, "action", "").startswith("broker_")]
        assert actions[:1] == ["broker_blocked"]
        assert actions[-1:] == ["broker_unblocked"]
    finally:
        await shell.close()
        await broker.close()


async def test_a_client_of_a_broker_in_memory_is_told_too():
    broker = MemoryBroker()
    async with Client(broker=broker, patience=0.2) as client:
        broker.block()
        with pytest.raises(BrokerBlocked, match=SAYS):
            await client.start("add")
        broker.unblock()
        await client.start("add")
    await broker.close()

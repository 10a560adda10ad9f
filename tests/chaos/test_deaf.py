"""A worker is never deaf for long: within 30 s it works again or has ended with the reason, and says so meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowkit.broker import open_broker
from flowkit.client import Client
from flowkit.wire.topology import Queue, Topology
from tests.e2e.processes import WORKERS, Command, Shell
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ

PROMISED = 30  # seconds

pytestmark = pytest.mark.timeout(120)


@dataclass
class System:
    """A coordinator as it should be, and a worker that has a login and a way of its own."""

    rabbit: RabbitMQ
    shell: Shell
    worker: Command
    topology: Topology
    proxy: Proxy

    @property
    def login(self) -> str:
        return self.topology.namespace

    async def permit(self, configure: str, write: str, read: str) -> None:
        await asyncio.to_thread(self.rabbit.ctl, "set_permissions", self.login, configure, write, read)

    async def cut(self) -> None:
        await asyncio.to_thread(self.rabbit.close_connections)

    async def works(self, run: str) -> None:
        async with Client(self.rabbit.url, namespace=self.topology.namespace) as client:
            begun = await client.start("add", {"a": 1, "b": 2}, id=run)
            assert await begun.outputs(timeout=PROMISED) == {"result": 3}

    async def ready(self) -> bool:
        code, out, _ = await self.shell.call("health", "--ready", "--kind", "worker", "--json")
        healthy = bool(json.loads(out)["healthy"])
        assert code == (0 if healthy else 1)
        return healthy

    async def becomes_ready(self, *, ready: bool) -> None:
        async with asyncio.timeout(PROMISED):
            while await self.ready() is not ready:
                pass

    async def doctor(self) -> str:
        """What is wrong, asked with the worker's own login."""
        environment = self.shell.environment
        here, environment["FLOWKIT_BROKER_URL"] = environment["FLOWKIT_BROKER_URL"], environment["WORKER_URL"]
        try:
            code, out, _ = await self.shell.call("doctor")
        finally:
            environment["FLOWKIT_BROKER_URL"] = here
        assert code == 1, out
        return out

    async def ends(self, reason: str) -> int:
        """The worker's exit code; it has said the reason."""
        began = time.monotonic()
        code, _ = await self.worker.result(PROMISED)
        assert time.monotonic() - began < PROMISED
        assert reason in self.worker.said
        return code


@pytest.fixture
async def system(private_rabbitmq: RabbitMQ, namespace: str, tmp_path: Path) -> AsyncIterator[System]:
    await asyncio.to_thread(private_rabbitmq.ctl, "add_user", namespace, "first")
    await asyncio.to_thread(private_rabbitmq.ctl, "set_permissions", namespace, ".*", ".*", ".*")
    async with Proxy(private_rabbitmq.port) as proxy:
        shell = Shell(
            tmp_path,
            FLOWKIT_BROKER_URL=private_rabbitmq.url,
            FLOWKIT_NAMESPACE=namespace,
            FLOWKIT_STORE_URL=f"sqlite:///{tmp_path}/flowkit.db",
            FLOWKIT_NODES_DIR=str(WORKERS),
            FLOWKIT_HEARTBEAT="2",
            WORKER_URL=f"amqp://{namespace}:first@127.0.0.1:{proxy.port}/",
            XDG_RUNTIME_DIR=str(tmp_path),
        )
        try:
            await shell.coordinator()
            worker = await shell.flowkit("worker", "--node", "add", "--broker", shell.environment["WORKER_URL"])
            await worker.says("takes tasks of")
            system = System(private_rabbitmq, shell, worker, Topology(namespace), proxy)
            await system.works("before")
            await system.becomes_ready(ready=True)
            yield system
        finally:
            await shell.close()
            await asyncio.to_thread(private_rabbitmq.ctl, "delete_user", namespace)


async def test_a_login_that_is_refused_ends_it(system: System) -> None:
    """Two workers, for it takes a while: one's password is changed, the other one has no permissions any more."""
    rabbit, other = system.rabbit, f"{system.login}-2"
    await asyncio.to_thread(rabbit.ctl, "add_user", other, "first")
    await asyncio.to_thread(rabbit.ctl, "set_permissions", other, ".*", ".*", ".*")
    try:
        broker = f"amqp://{other}:first@127.0.0.1:{rabbit.port}/"
        second = await system.shell.flowkit("worker", "--node", "add", "--broker", broker)
        await second.says("takes tasks of")
        await asyncio.to_thread(rabbit.ctl, "clear_permissions", other)
        await asyncio.to_thread(rabbit.ctl, "change_password", system.login, "second")
        await system.cut()
        ended = asyncio.create_task(system.ends("login refused"))
        await system.becomes_ready(ready=False)
        assert "login refused" in await system.doctor()
        assert await ended == 3
        assert (await second.result(PROMISED))[0] == 3
        assert f"access to vhost '/' refused for user '{other}'" in second.said
    finally:
        await asyncio.to_thread(rabbit.ctl, "delete_user", other)


async def test_a_queue_that_may_not_be_read_any_more_ends_it(system: System) -> None:
    await system.permit(".*", ".*", rf"^{system.login}\.control.*")
    await system.cut()
    assert await system.ends(f"queue '{system.topology.tasks('add').name}' may not be consumed") == 6


async def test_results_that_may_not_be_written_any_more_end_it(system: System) -> None:
    await system.permit(".*", rf"^{system.login}\.(workers|logs|control.*)$", ".*")
    await system.cut()
    async with Client(system.rabbit.url, namespace=system.topology.namespace) as client:
        await client.start("add", {"a": 1, "b": 2}, id="in-vain")
        assert await system.ends(f"access to exchange '{system.topology.name('results')}'") == 1


async def test_a_deleted_queue_is_declared_again(system: System) -> None:
    broker = open_broker(system.rabbit.url)
    try:
        await broker.delete(system.topology.tasks("add").name)
    finally:
        await broker.close()
    await system.becomes_ready(ready=True)
    await system.works("after")


async def test_a_queue_that_was_swapped_is_heard_again(system: System) -> None:
    """Deleted and declared anew within milliseconds: the broker says nothing, and delivers nothing (3.10)."""
    broker = open_broker(system.rabbit.url)
    try:
        await broker.delete(system.topology.tasks("add").name)
        await broker.declare([system.topology.tasks("add")])
    finally:
        await broker.close()
    await system.works("after")


async def test_a_queue_with_other_arguments_is_said_by_all(system: System) -> None:
    queue = system.topology.tasks("add")
    broker = open_broker(system.rabbit.url)
    try:
        await broker.delete(queue.name)
        await broker.declare([Queue(queue.name, (), queue.bindings)])
    finally:
        await broker.close()
    said = await system.doctor()
    assert f"queue {queue.name!r} stands on the broker with " in said
    await system.cut()
    assert await system.ends("stands on the broker with") == 6


async def test_a_black_hole_is_noticed_and_left(system: System) -> None:
    system.proxy.swallow()
    await system.becomes_ready(ready=False)
    system.proxy.flow()
    await system.becomes_ready(ready=True)
    await system.works("after")

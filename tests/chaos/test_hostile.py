"""Hostile messages in every queue: each service lives, and a good run goes through afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowkit.cli.doctor.audit import audit
from flowkit.client import Client
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.chaos import corpus
from tests.chaos.raw import RawPublisher
from tests.e2e.processes import WORKERS, Command, Shell

pytestmark = pytest.mark.timeout(180)


@dataclass
class Attacked:
    """A coordinator and a worker, and a way in."""

    url: str
    shell: Shell
    services: list[Command]
    topology: Topology

    async def throw(self, exchange: str, hostile: list[corpus.Hostile]) -> int:
        """Publish all; how many the broker took."""
        key = {"tasks": "add", "dead": self.topology.starts.name}.get(exchange, "add")
        taken = 0
        async with RawPublisher(self.url) as publisher:
            for _, properties, body in hostile:
                taken += await publisher.publish(self.topology.name(exchange), key, properties, body)
        return taken

    async def lives(self, run: str, timeout: float = 60) -> None:
        """A good run goes through, and nobody has ended."""
        async with Client(self.url, namespace=self.topology.namespace, patience=timeout) as client:
            begun = await client.start("add", {"a": 1, "b": 2}, id=run)
            assert await begun.outputs(timeout=timeout) == {"result": 3}
        for command in self.services:
            assert command.process.returncode is None, command.said[-3000:]
            assert "Traceback" not in command.said.replace("batch of", ""), command.said[-6000:]


@pytest.fixture
async def attacked(rabbitmq_url: str, namespace: str, tmp_path: Path) -> AsyncIterator[Attacked]:
    shell = Shell(
        tmp_path,
        FLOWKIT_BROKER_URL=rabbitmq_url,
        FLOWKIT_NAMESPACE=namespace,
        FLOWKIT_STORE_URL=f"sqlite:///{tmp_path}/flowkit.db",
        FLOWKIT_NODES_DIR=str(WORKERS),
    )
    try:
        services = [await shell.coordinator(), await shell.worker("add")]
        attacked = Attacked(rabbitmq_url, shell, services, Topology(namespace))
        await attacked.lives("before")
        yield attacked
        for command in reversed(services):
            assert await command.terminate() == 0, command.said[-3000:]
        store = await open_store(shell.environment["FLOWKIT_STORE_URL"])
        try:
            found = await audit(store, since=None, progress=lambda _: None)
        finally:
            await store.close()
        assert found.problems == []
    finally:
        await shell.close()


@pytest.mark.parametrize("exchange", corpus.EXCHANGES)
async def test_odd_messages_stop_nobody(attacked: Attacked, exchange: str) -> None:
    hostile = list(corpus.all_for(exchange))
    taken = await attacked.throw(exchange, hostile)
    # The broker refuses a foreign user_id and an expiration that is no number; a stream also headers over its frame.
    assert taken >= len(hostile) - (3 if exchange == "logs" else 2)
    await attacked.lives("after")


async def test_large_messages_stop_nobody(attacked: Attacked) -> None:
    hostile = [(name, corpus.DURABLE, body) for name, body in corpus.LARGE.items()]
    for exchange in corpus.EXCHANGES:
        assert await attacked.throw(exchange, hostile) == len(hostile)
    await attacked.lives("after")


@pytest.mark.parametrize("exchange", corpus.EXCHANGES)
async def test_messages_that_others_cannot_decode_cost_no_connection(attacked: Attacked, exchange: str) -> None:
    hostile = [(name, corpus.DURABLE | properties, b"{}") for name, properties in corpus.POISON.items()]
    assert await attacked.throw(exchange, hostile) == len(hostile)
    await attacked.lives("after")
    assert not [command.said for command in attacked.services if " lost: " in command.said]


def test_the_corpus_is_counted() -> None:
    counts = {exchange: len(list(corpus.all_for(exchange))) for exchange in corpus.EXCHANGES}
    total = sum(counts.values()) + len(corpus.EXCHANGES) * (len(corpus.LARGE) + len(corpus.POISON))
    assert total >= 2_000, counts

"""A process of a simulation that was killed has no effect on the world any more."""

from __future__ import annotations

from flowkit.broker.memory.server import Server
from flowkit.store import open_store
from flowkit.testing.faults import Fates, Faults
from flowkit.testing.life import Life
from flowkit.wire.topology import Topology


async def test_what_a_killed_process_consumes_later_takes_nothing():
    store = await open_store("sqlite://")
    server, topology = Server(), Topology()
    fates = Fates(1, Faults())
    life = Life(
        "worker-1.1", "worker", server, store, fates=fates, jump=lambda seconds: None, announced=set(),
        on_results=lambda life, body: None,
    )  # fmt: skip
    await life.die()
    life.broker.consume(topology.tasks("a"), prefetch=1)
    assert not server.consumers
    server.wipe()
    assert not server.consumers
    await store.close()

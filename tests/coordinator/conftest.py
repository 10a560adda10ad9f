from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from flowkit.broker import open_broker
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.coordinator.house import House


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    """Over the in-memory broker and a new SQLite file."""
    broker = open_broker(f"memory:{uuid4().hex}")
    store = await open_store(f"sqlite:///{tmp_path}/flowkit.db")
    house = House(broker, store, Topology())
    yield house
    await house.close()
    await store.close()
    await broker.close()

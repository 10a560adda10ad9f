from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from flowkit.broker.memory import MemoryBroker
from tests.client.coordinator import Coordinator


@pytest.fixture
def url() -> str:
    """A broker in memory that no other test has."""
    return f"memory:{uuid4().hex}"


@pytest.fixture
async def coordinator(url) -> AsyncIterator[Coordinator]:
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    coordinator = Coordinator(broker)
    await coordinator.declare()
    yield coordinator
    await broker.close()

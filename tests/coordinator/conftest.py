from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from flowkit.broker import open_broker
from flowkit.cli.doctor.audit import audit
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.coordinator.house import House


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    """Over the in-memory broker and a new SQLite file."""
    async with _house(f"memory:{uuid4().hex}", f"sqlite:///{tmp_path}/flowkit.db", "flowkit") as house:
        yield house


@pytest.fixture(params=["sqlite", "postgresql"])
async def either_house(request, tmp_path) -> AsyncIterator[House]:
    """Over the in-memory broker, and each of the stores in turn."""
    sqlite = f"sqlite:///{tmp_path}/flowkit.db"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    async with _house(f"memory:{uuid4().hex}", url, "flowkit") as house:
        yield house


@pytest.fixture
async def real_house(rabbitmq_url, postgres_database, namespace) -> AsyncIterator[House]:
    """Over a real RabbitMQ and a real PostgreSQL."""
    async with _house(rabbitmq_url, postgres_database, namespace) as house:
        yield house


@contextlib.asynccontextmanager
async def _house(broker_url: str, store_url: str, namespace: str) -> AsyncIterator[House]:
    broker = open_broker(broker_url)
    store = await open_store(store_url)
    house = House(broker, store, Topology(namespace))
    try:
        yield house
        found = await audit(store, since=None, progress=lambda _: None)
        assert found.problems == [], "whatever happened in the test, this must hold of its runs"
    finally:
        await house.close()
        await store.close()
        await broker.close()


@pytest.fixture(params=["embedded", "services"])
async def every_house(request, tmp_path, namespace) -> AsyncIterator[House]:
    """Embedded, and over a real RabbitMQ and a real PostgreSQL."""
    urls = (f"memory:{uuid4().hex}", f"sqlite:///{tmp_path}/flowkit.db")
    if request.param == "services":
        urls = (request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("postgres_database"))
    async with _house(*urls, namespace) as house:
        yield house

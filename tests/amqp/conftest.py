"""A connection to the real RabbitMQ, and a broker that says what the test wants."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from flowkit.amqp import Address, Connection, connect
from tests.amqp.scripted import Scripted


@pytest.fixture
async def connection(rabbitmq_url) -> AsyncIterator[Connection]:
    made = await connect(Address.parse(rabbitmq_url), heartbeat=15, properties={"connection_name": "tests of amqp"})
    yield made
    await made.close()


@pytest.fixture
def name() -> str:
    return f"amqp-{uuid.uuid4().hex}"


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    broker = Scripted()
    async with broker:
        yield broker

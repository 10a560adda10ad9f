"""Doors of a RabbitMQ that do not open: said at once and in words, with no password in them."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from flowkit.broker.rabbit import RabbitBroker
from flowkit.errors import BrokerUnreachable, UsageError
from flowkit.wire.topology import Topology
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ


async def refusal(url: str, timeout: float = 5) -> BrokerUnreachable:
    broker = RabbitBroker(url)
    try:
        with pytest.raises(BrokerUnreachable) as caught:
            await broker.connect(timeout)
    finally:
        await broker.close()
    assert "secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("login", "path", "why"),
    [
        ("guest:secret", "", "login refused"),
        ("nobody:secret", "", "login refused"),
        ("guest:guest", "nowhere", "vhost nowhere not found"),
    ],
)
async def test_a_wrong_password_or_virtual_host_is_said_at_once(
    private_rabbitmq: RabbitMQ, login: str, path: str, why: str
) -> None:
    began = time.monotonic()
    error = await refusal(f"amqp://{login}@127.0.0.1:{private_rabbitmq.port}/{path}")
    assert (error.why, error.final) == (why, True)
    assert time.monotonic() - began < 3


async def test_a_virtual_host_without_permission_is_said_at_once(private_rabbitmq: RabbitMQ) -> None:
    private_rabbitmq.ctl("add_vhost", "closed")
    error = await refusal(f"amqp://guest:guest@127.0.0.1:{private_rabbitmq.port}/closed")
    assert (error.why, error.final) == ("access to vhost 'closed' refused for user 'guest'", True)


@pytest.mark.parametrize(
    "banner", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"220 smtp ready\r\n"]
)
async def test_a_port_that_speaks_something_else_is_said_at_once(banner: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        error = await refusal(f"amqp://guest:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (error.why, error.final) == ("something else than AMQP answers there", True)


async def test_a_refused_connection_is_tried_until_the_timeout() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        error = await refusal(f"amqp://guest:secret@127.0.0.1:{taken.getsockname()[1]}/", timeout=0.5)
    assert (error.why.lower(), error.final) == ("connection refused", False)


async def test_a_port_that_says_nothing_is_given_up_at_the_timeout(private_rabbitmq: RabbitMQ) -> None:
    async with Proxy(private_rabbitmq.port) as proxy:
        proxy.swallow()
        error = await refusal(f"amqp://guest:guest@127.0.0.1:{proxy.port}/", timeout=0.5)
    assert (error.why, error.final) == ("no answer in 0.5 s", False)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("amqp://guest:secret@127.0.0.1/?heartbeat=abc", "heartbeat=abc: expected whole seconds"),
        ("amqp://guest:secret@127.0.0.1/?heartbeat=70000", "heartbeat=70000: expected whole seconds"),
        ("amqp://guest:secret@a..b/", "label"),
    ],
)
async def test_an_address_that_cannot_be_used_is_said_at_once(address: str, why: str) -> None:
    error = await refusal(address)
    assert error.final
    assert why in error.why


def test_an_address_never_shows_its_password_and_never_skips_certificates() -> None:
    broker = RabbitBroker("amqp://me:secret@mq.example:5672/prod?heartbeat=9")
    assert broker.url == "amqp://me:***@mq.example:5672/prod"
    with pytest.raises(UsageError, match="certificates are always verified") as caught:
        RabbitBroker("amqps://me:secret@mq.example/?no_verify_ssl=1")
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="expected amqp://"):
        RabbitBroker("amqp://me:secret@mq.example:port/")


async def test_a_password_that_libraries_read_in_different_ways(private_rabbitmq: RabbitMQ, namespace: str) -> None:
    """Messages and questions go by two libraries: both log in."""
    private_rabbitmq.ctl("add_user", namespace, "a\\b:c@d%\u00a8")
    private_rabbitmq.ctl("set_permissions", namespace, ".*", ".*", ".*")
    broker = RabbitBroker(f"amqp://{namespace}:a\\b:c@d%\u00a8@127.0.0.1:{private_rabbitmq.port}/")
    try:
        await broker.connect(10)
        assert await broker.declare(Topology(namespace).exchanges) == []
    finally:
        await broker.close()

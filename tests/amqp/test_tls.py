"""TLS to a real RabbitMQ."""

from __future__ import annotations

import os
import ssl

import pytest

from flowkit.amqp import Address, connect
from tests.amqp.asking import Collected, bodies, declare, message


async def test_messages_of_any_size_go_through(tls, name):
    address = Address.parse(f"{tls.url}?cafile={tls.folder}/ca.pem")
    connection = await connect(address, heartbeat=15, properties={})
    channel, collected = await connection.channel(confirms=True), Collected()
    await declare(channel, name)
    sent = [os.urandom(size) for size in (0, 1, 200, 16_384, 131_072, 2_000_000)] * 3
    assert await channel.publish([message(name, body) for body in sent]) == [None] * len(sent)
    await channel.consume(name, collected)
    assert bodies(await collected.expect(len(sent))) == sent
    await connection.close()


async def test_a_certificate_of_anybody_else_is_refused(tls):
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(Address.parse(f"{tls.url}?cafile={tls.folder}/other.pem"), heartbeat=15, properties={})


async def test_a_certificate_for_another_name_is_refused(tls):
    url = tls.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
        await connect(Address.parse(f"{url}?cafile={tls.folder}/ca.pem"), heartbeat=15, properties={})


async def test_tls_to_a_port_without_it(tls):
    address = Address("127.0.0.1", tls.plain_port, tls=ssl.create_default_context())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(address, heartbeat=15, properties={})

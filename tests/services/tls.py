"""A real RabbitMQ with a TLS port, whose certificate is of the tests' own authority."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import trustme

from tests.services.rabbitmq import RabbitMQ, free_ports, install

CONFIG = """
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
"""


@pytest.fixture(scope="session")
def tls(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A broker with a TLS port: its address without query, the authority's file, and that of another authority."""
    assert install(), "the test needs RabbitMQ's own binaries"
    folder, (port,) = tmp_path_factory.mktemp("tls"), free_ports(1)
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "rabbit.example.org")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    broker = RabbitMQ(CONFIG.format(port=port, folder=folder))
    try:
        broker.start()
        yield SimpleNamespace(
            url=f"amqps://guest:guest@127.0.0.1:{port}/", folder=folder, plain_port=broker.port, port=port
        )
    finally:
        broker.close()

"""TLS to a real RabbitMQ whose certificate is of the test's own authority: verified, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.broker.rabbit import RabbitBroker
from flowkit.errors import BrokerUnreachable, UsageError
from flowkit.wire.topology import Topology
from tests.e2e.processes import WORKERS, Shell


async def refusal(url: str) -> BrokerUnreachable:
    broker = RabbitBroker(url)
    try:
        with pytest.raises(BrokerUnreachable) as caught:
            await broker.connect(timeout=10)
    finally:
        await broker.close()
    return caught.value


async def test_a_certificate_of_a_trusted_authority_is_accepted(tls, namespace):
    broker = RabbitBroker(f"{tls.url}?cafile={tls.folder}/ca.pem")
    try:
        await broker.connect(timeout=10)
        assert await broker.declare(Topology(namespace).standing) == []
    finally:
        await broker.close()


@pytest.mark.parametrize("query", ["", "?cafile={folder}/other.pem"])
async def test_a_certificate_of_anybody_else_is_refused(tls, query):
    error = await refusal(tls.url + query.format(folder=tls.folder))
    assert error.final
    assert "certificate cannot be verified" in error.why


async def test_a_certificate_for_another_name_is_refused(tls):
    error = await refusal(f"{tls.url.replace('127.0.0.1', 'localhost')}?cafile={tls.folder}/ca.pem")
    assert error.final
    assert "certificate cannot be verified" in error.why
    assert "localhost" in error.why or "mismatch" in error.why.lower(), error.why


async def test_tls_to_a_port_without_it_is_said(tls):
    error = await refusal(f"amqps://guest:guest@127.0.0.1:{tls.plain_port}/?cafile={tls.folder}/ca.pem")
    assert "does not speak TLS" in error.why


@pytest.mark.parametrize(("name", "why"), [("nowhere.pem", "No such file"), ("words.pem", "is no PEM file")])
def test_a_file_that_cannot_serve_is_named(tls, name, why):
    (tls.folder / "words.pem").write_text("no certificate")
    with pytest.raises(UsageError, match=f"cafile=.*{name}.* {why}"):
        RabbitBroker(f"{tls.url}?cafile={tls.folder}/{name}")


async def test_a_run_goes_through_over_tls(tls, namespace, tmp_path):
    shell = Shell(
        tmp_path,
        FLOWKIT_BROKER_URL=tls.url,
        FLOWKIT_NAMESPACE=namespace,
        FLOWKIT_STORE_URL=f"sqlite:///{tmp_path}/flowkit.db",
        FLOWKIT_NODES_DIR=str(WORKERS),
        SSL_CERT_FILE=str(Path(tls.folder) / "ca.pem"),
    )
    try:
        await shell.coordinator()
        await shell.worker("add")
        code, out, said = await shell.call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "one", "--wait")
        assert (code, out) == (0, 'one\n{"result": 3}\n'), said
        code, out, said = await shell.call("doctor")
        assert "broker: amqps://guest:***@" in out
    finally:
        await shell.close()

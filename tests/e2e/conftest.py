from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flowkit.cli.doctor.audit import audit
from flowkit.store import open_store
from tests.e2e.processes import WORKERS, Shell


@pytest.fixture
async def shell(rabbitmq_url, namespace, tmp_path) -> AsyncIterator[Shell]:
    """A terminal with RabbitMQ's address in its environment, the samples as nodes, and a store in a new folder."""
    shell = Shell(
        tmp_path,
        FLOWKIT_BROKER_URL=rabbitmq_url,
        FLOWKIT_NAMESPACE=namespace,
        FLOWKIT_STORE_URL=f"sqlite:///{tmp_path}/flowkit.db",
        FLOWKIT_NODES_DIR=str(WORKERS),
    )
    try:
        yield shell
        await shell.close()
        store = await open_store(shell.environment["FLOWKIT_STORE_URL"])
        try:
            found = await audit(store, since=None, progress=lambda _: None)
        finally:
            await store.close()
        assert found.problems == [], "whatever happened in the test, this must hold of its runs"
    finally:
        await shell.close()

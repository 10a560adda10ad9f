from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

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
    yield shell
    await shell.close()

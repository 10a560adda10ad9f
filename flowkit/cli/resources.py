"""Broker and store, opened for one verb and closed after it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from flowkit.errors import StoreUnreachable

if TYPE_CHECKING:
    from flowkit.broker import Broker
    from flowkit.settings import Settings
    from flowkit.store.protocol import Store

PATIENCE = 5  # seconds that somebody at a keyboard waits for a broker to answer


@contextlib.asynccontextmanager
async def broker_of(settings: Settings) -> AsyncIterator[Broker]:
    """The broker, connected.

    Raises:
        BrokerUnreachable
    """
    from flowkit.broker import open_broker

    broker = open_broker(settings.broker_url, heartbeat=settings.heartbeat)
    try:
        await broker.connect(PATIENCE)
        yield broker
    finally:
        await broker.close()


@contextlib.asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[Store]:
    """The store, for reading: no lock is taken, and nothing is created where nothing is.

    Raises:
        StoreUnreachable
        UsageError: its tables are of another version.
    """
    from flowkit.store import open_store

    if not exists(settings.store_url):
        raise StoreUnreachable(settings.store_url, "there is no such file; a coordinator makes it when it starts")
    store = await open_store(settings.store_url, upgrade=False)
    try:
        yield store
    finally:
        await store.close()


def exists(store_url: str) -> bool:
    """Whether the file of an SQLite store is there; of any other store: yes, until it is asked."""
    from flowkit.store.address import sqlite_path

    path = sqlite_path(store_url)
    return path is None or path.exists()

"""The store: the truth about runs, in SQLite or PostgreSQL.

``protocol`` is what the coordinator knows of it, ``views`` what people see. Inside, ``sqlstore`` hops into the thread,
``attempt`` runs a transaction, ``kept`` remembers what it need not load, ``transaction`` and ``writing`` have the
statements of the commit protocol, ``queries`` those for people, and ``sqlite`` and ``postgres`` say how each database
takes a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from flowkit.store.address import database_at, sqlite_path
from flowkit.store.inline import Inline
from flowkit.store.lock import FileLock
from flowkit.store.protocol import Store
from flowkit.store.schema import SchemaStatus
from flowkit.store.sqlstore import SqlStore

__all__ = ["Inline", "SchemaStatus", "Store", "open_store", "schema_status", "upgrade_schema"]


async def open_store(
    url: str,
    *,
    upgrade: bool = True,
    lock: bool = False,
    executor: Executor | None = None,
    clock: Callable[[], float] | None = None,
) -> Store:
    """Open a store and make its tables when it has none.

    Args:
        url: ``sqlite:///path``, ``sqlite://`` (in memory, gone when it is closed) or ``postgresql://…``.
        upgrade: bring the tables of an older FlowKit up to date; without it they are an error.
        lock: be the one coordinator of an SQLite file. Who only reads takes none.
        executor: where the statements run; a thread of its own unless given. ``Inline()`` for simulations.
        clock: Unix seconds; without one PostgreSQL's own clock decides, or this machine's for SQLite.

    Raises:
        StoreUnreachable: with a short reason.
        StoreInUse: another coordinator has the lock.
        UsageError: the address makes no sense, the driver is missing, or the tables are of another version.
    """
    path = sqlite_path(url)
    file_lock = FileLock(path) if lock and path else None
    store = SqlStore(database_at(url, clock=clock), executor=executor, lock=file_lock)
    await store.open(upgrade=upgrade)
    return store


async def schema_status(url: str) -> SchemaStatus:
    """Which version the tables at an address have: ``flowkit db status``."""
    from flowkit.store import schema

    database = database_at(url)
    try:
        return await asyncio.to_thread(schema.status, database)
    finally:
        await asyncio.to_thread(database.close)


async def upgrade_schema(url: str) -> SchemaStatus:
    """Bring the tables at an address up to date, or make them: ``flowkit db upgrade``."""
    store = await open_store(url, upgrade=True)
    await store.close()
    return await schema_status(url)

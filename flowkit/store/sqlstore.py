"""The store: a database, and the one thread that talks to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from flowkit.store import schema
from flowkit.store.attempt import attempt
from flowkit.store.database import Database
from flowkit.store.kept import Kept
from flowkit.store.lock import FileLock
from flowkit.store.protocol import Transaction
from flowkit.store.views import Queries

T = TypeVar("T")


class SqlStore:
    """A database with the tables of FlowKit. One hop to the thread for each transaction, and one at a time.

    Whoever stops waiting for a transaction does not stop it: it ends in its thread.
    """

    def __init__(self, database: Database, *, executor: Executor | None = None, lock: FileLock | None = None) -> None:
        self._database = database
        self._lock = lock
        self._kept = Kept()
        self._own = ThreadPoolExecutor(1, thread_name_prefix="flowkit-store") if executor is None else None
        self._executor = executor or self._own

    @property
    def url(self) -> str:
        """The address with the password masked."""
        return self._database.url

    async def open(self, *, upgrade: bool) -> None:
        """Take the lock, connect, and see to the tables."""
        try:
            if self._lock:
                self._lock.acquire()
            await self._run(lambda: schema.prepare(self._database, upgrade=upgrade))
        except BaseException:
            await self.close()
            raise

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        """Run ``function`` in one transaction in the store's thread."""

        def write(database: Database) -> T:
            from flowkit.store.transaction import SqlTransaction  # a verb that only looks would wait for it

            self._kept.begin(alone=database.alone())
            return function(SqlTransaction(database, self._kept))

        def work() -> T:
            result = attempt(self._database, write)
            self._kept.commit()
            return result

        return await self._run(work)

    async def query(self, function: Callable[[Queries], T]) -> T:
        """Run ``function`` over the read-only queries, in the store's thread."""

        def read(database: Database) -> T:
            from flowkit.store.queries import SqlQueries  # nor does a coordinator need all that people ask

            return function(SqlQueries(database))

        return await self._run(lambda: attempt(self._database, read, reading=True))

    async def close(self) -> None:
        """Finish what runs, close the connections, end the thread."""
        if self._executor is None:
            return
        await self._run(self._database.close)
        self._executor = None
        if self._own:
            self._own.shutdown()
        if self._lock:
            self._lock.release()

    async def _run(self, function: Callable[[], T]) -> T:
        if self._executor is None:
            raise RuntimeError(f"store {self.url} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

"""Behind PgBouncer in transaction mode: each transaction may have another connection of the server."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest

from flowkit.errors import StoreUnreachable
from flowkit.store import open_store, schema_status
from tests.services import pgbouncer as pooler
from tests.services.postgres import database, with_database


async def test_many_clients_on_few_connections(pooled_database: str) -> None:
    """More than the pool has, and more statements than a driver needs to begin to prepare them."""
    stores = [await open_store(pooled_database) for _ in range(2 * pooler.POOL)]

    async def work(store, number: int) -> None:
        for turn in range(20):
            await store.transact(lambda tx, turn=turn: tx.set_meta(f"{number}", f"{turn}"))
            assert await store.query(lambda q: q.meta(f"{number}")) == f"{turn}"

    await asyncio.gather(*(work(store, number) for number, store in enumerate(stores)))
    for store in stores:
        await store.close()


async def test_nothing_is_left_on_the_connections_of_the_server(pooled_database: str) -> None:
    store = await open_store(pooled_database)
    for _ in range(10):
        await store.transact(lambda tx: tx.meta("id"))
        await store.query(lambda q: q.meta("id"))
    with psycopg.connect(pooled_database, autocommit=True, prepare_threshold=None) as other:
        assert other.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)
        assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    await store.close()


async def test_whoever_stands_still_in_a_transaction_loses_it(
    pooled_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkit.store.postgres.IDLE", 1)
    store = await open_store(pooled_database)
    with psycopg.connect(pooled_database, autocommit=True, prepare_threshold=None) as watcher:
        gone = threading.Event()

        def stand_still(tx) -> None:
            tx.set_meta("k", "v")
            watcher.execute("SELECT 1")
            gone.wait(1.5)
            tx.meta("k")

        with pytest.raises(StoreUnreachable):
            await store.transact(stand_still)
    assert await store.transact(lambda tx: tx.meta("k")) is None
    await store.close()


async def test_tables_are_made_and_upgraded(pgbouncer, postgres_url: str) -> None:
    with database(postgres_url) as direct:
        url = pgbouncer.through(direct)
        await (await open_store(url)).close()
        assert (await schema_status(url)).current


async def test_its_death_is_a_reason_to_wait(postgres_database: str) -> None:
    with pooler.pooler(postgres_database) as own:
        store = await open_store(own.through(postgres_database))
        await store.transact(lambda tx: tx.set_meta("k", "1"))
        own.kill()
        with pytest.raises(StoreUnreachable) as said:
            await store.transact(lambda tx: tx.set_meta("k", "2"))
        assert not said.value.final
        own.start()
        await store.transact(lambda tx: tx.set_meta("k", "3"))
        assert await store.query(lambda q: q.meta("k")) == "3"
        await store.close()


async def test_a_pooler_that_nobody_recognised_costs_one_try(postgres_database: str) -> None:
    """As when it passes on the server's own process id: the prepared statements are gone with the first connection."""
    store = await open_store(postgres_database)

    def ask(tx) -> str | None:
        return tx.meta("id")

    for _ in range(10):
        await store.transact(ask)
    prepared = "SELECT count(*) FROM pg_prepared_statements"
    assert store._database.connection.execute(prepared, prepare=False).fetchone() != (0,)
    store._database.connection.pgconn.exec_(b"DEALLOCATE ALL")  # behind the driver's back
    tries = []

    def ask_again(tx) -> str | None:
        tries.append(1)
        return ask(tx)

    assert await store.transact(ask_again) is not None
    assert len(tries) == 2
    for _ in range(10):
        await store.transact(ask_again)
    assert len(tries) == 12
    assert store._database.connection.execute(prepared, prepare=False).fetchone() == (0,)
    await store.close()


async def test_a_database_that_it_does_not_reach_is_named(pgbouncer, postgres_url: str) -> None:
    with pytest.raises(StoreUnreachable, match=r"nowhere"):
        await open_store(pgbouncer.through(with_database(postgres_url, "nowhere")))

"""The proxy before PostgreSQL drops connections at the COMMITs of writers: before the server gets it, or afterwards."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.services.postgres_proxy import PostgresProxy


def insert(url: str, rows: int, *, prepared: bool) -> int:
    """Insert rows, each in a transaction, with a new connection after a lost one; how many COMMITs were answered."""
    answered = 0
    session: psycopg.Connection | None = None
    for row in range(rows):
        session = session or psycopg.connect(url, autocommit=True, prepare_threshold=0 if prepared else None)
        try:
            session.execute("BEGIN", prepare=False)
            session.execute("INSERT INTO dropped VALUES (%s)", [row])
            session.execute("COMMIT")
            answered += 1
        except psycopg.OperationalError:
            session.close()
            session = None
    if session is not None:
        session.close()
    return answered


@pytest.mark.parametrize("prepared", [False, True])
async def test_commits_are_lost_before_and_after(postgres_database: str, *, prepared: bool) -> None:
    with psycopg.connect(postgres_database, autocommit=True) as direct:
        direct.execute("CREATE TABLE dropped (number int)")
        async with PostgresProxy(postgres_database) as proxy:
            proxy.lose_commits(0.5)
            answered = await asyncio.to_thread(insert, proxy.url, 40, prepared=prepared)
            assert proxy.commits == 40
            assert proxy.dropped_before > 0
            assert proxy.dropped_after > 0
            assert answered == 40 - proxy.dropped_before - proxy.dropped_after
            kept = direct.execute("SELECT count(*), count(DISTINCT number) FROM dropped").fetchone()
            assert kept == (40 - proxy.dropped_before,) * 2


async def test_a_stall_between_transactions_leaves_no_transaction_open(postgres_database: str) -> None:
    def write(session: psycopg.Connection) -> None:
        session.execute("BEGIN; SELECT 1", prepare=False)
        session.execute("COMMIT")

    async with PostgresProxy(postgres_database) as proxy:
        session = await asyncio.to_thread(psycopg.connect, proxy.url, autocommit=True)
        await asyncio.to_thread(write, session)
        proxy.stall_transactions()
        writing = asyncio.create_task(asyncio.to_thread(write, session))
        await proxy.stalled.wait()
        assert not writing.done()
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            await writing
        with pytest.raises(psycopg.OperationalError):
            await asyncio.to_thread(psycopg.connect, proxy.url)
        proxy.restore()
        session = await asyncio.to_thread(psycopg.connect, proxy.url, autocommit=True)
        await asyncio.to_thread(write, session)
        session.close()

"""What each error of a database means: only what the data cause may be blamed on them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from flowkit.errors import StoreUnreachable, Unstorable
from flowkit.store import open_store, postgres_errors, sqlite_errors
from flowkit.store.database import Again, Down, Invalid
from flowkit.store.postgres_errors import CLASSES, Meaning, meaning

STATES = {
    kind.sqlstate: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, psycopg.Error) and isinstance(kind.sqlstate, str)
}
DATA_CLASSES = ("21", "22", "23", "44", "54")


def test_every_class_that_the_driver_knows_is_decided() -> None:
    assert {state[:2] for state in STATES} <= set(CLASSES)


@pytest.mark.parametrize("state", sorted(STATES))
def test_only_data_are_blamed_on_data(state: str) -> None:
    verdict = postgres_errors.classify(STATES[state](), "no matter")
    blames = isinstance(verdict, Invalid) or (isinstance(verdict, Again) and verdict.data)
    assert blames == state.startswith(DATA_CLASSES)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("55P03", Meaning.WAIT),  # lock_timeout
        ("57014", Meaning.WAIT),  # statement_timeout
        ("57P01", Meaning.WAIT), ("57P02", Meaning.WAIT), ("57P03", Meaning.WAIT),
        ("25006", Meaning.WAIT), ("25P02", Meaning.WAIT), ("25P03", Meaning.WAIT),
        ("53300", Meaning.WAIT), ("53100", Meaning.PERSON), ("58030", Meaning.WAIT), ("0A000", Meaning.WAIT),
        ("40001", Meaning.LOST), ("40P01", Meaning.LOST), ("40003", Meaning.WAIT),
        ("42P01", Meaning.PERSON), ("42703", Meaning.PERSON), ("42501", Meaning.PERSON), ("3F000", Meaning.PERSON),
        ("28P01", Meaning.PERSON), ("XX001", Meaning.PERSON), ("XX000", Meaning.WAIT),
        ("42P05", Meaning.LOST_STATEMENTS), ("26000", Meaning.LOST_STATEMENTS),
        ("23505", Meaning.TAKEN), ("23502", Meaning.DATA), ("22003", Meaning.DATA), ("54000", Meaning.DATA),
        (None, Meaning.WAIT), ("ZZ123", Meaning.WAIT),
    ],
)  # fmt: skip
def test_what_was_decided(state: str | None, expected: Meaning) -> None:
    assert meaning(state) is expected


def test_what_the_driver_itself_refuses_is_blamed_on_the_data() -> None:
    assert postgres_errors.classify(psycopg.DataError(), "NUL") == Invalid("NUL")
    assert isinstance(postgres_errors.classify(psycopg.OperationalError(), "the connection is lost"), Down)
    assert isinstance(postgres_errors.classify(psycopg.ProgrammingError(), "a bug"), Down)


def _sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("no matter")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("code", range(1, 29))
def test_every_result_code_of_sqlite_is_decided(code: int) -> None:
    tables = (sqlite_errors.DATA, sqlite_errors.AWAY, sqlite_errors.BROKEN, sqlite_errors.OTHERS)
    assert sum(code in table for table in tables) == 1
    verdict = sqlite_errors.classify(_sqlite_error(code | 5 << 8))  # an extended code
    names = {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
    assert isinstance(verdict, Invalid) == (code in names)


ODD = {
    "an integer over 64 bits": {"at": 2**70},
    "a lone surrogate": {"key": "\ud800"},
    "NUL in text": {"key": "a\0b"},
    "a value for nothing": {"key": None},
}


@pytest.mark.parametrize("url", ["sqlite", "postgres_database", "pooled_database"])
@pytest.mark.parametrize("odd", ODD)
async def test_odd_values_are_the_fault_of_the_data(request, tmp_path: Path, url: str, odd: str) -> None:
    address = f"sqlite:///{tmp_path}/flowkit.db" if url == "sqlite" else request.getfixturevalue(url)
    store = await open_store(address)
    given = {"key": "k", "at": 1} | ODD[odd]
    fits = url == "sqlite" and odd == "NUL in text"

    def write(tx) -> None:
        tx._database.insert("archive", ("id", "until"), [(given["at"], 1.0)], new_only=True)
        tx.set_meta(given["key"], "v")

    if fits:
        await store.transact(write)
    else:
        with pytest.raises(Unstorable, match="cannot keep this"):
            await store.transact(write)
    assert await store.transact(lambda tx: tx.meta("id")) is not None
    await store.close()


async def test_a_row_that_another_one_added_is_the_fault_of_the_data_in_the_end(postgres_database: str) -> None:
    store = await open_store(postgres_database)
    tries = []

    def add(tx) -> None:
        tries.append(1)
        tx._database.insert("archive", ("id", "until"), [(1, 1.0)])

    with pytest.raises(Unstorable, match="duplicate key"):
        await store.transact(add)
    assert len(tries) == 6
    await store.close()


async def test_a_table_that_is_missing_needs_a_person(tmp_path: Path, postgres_database: str) -> None:
    for address in (f"sqlite:///{tmp_path}/flowkit.db", postgres_database):
        store = await open_store(address)
        with pytest.raises(StoreUnreachable, match="Compare the tables with this FlowKit: 'flowkit db status'") as said:
            await store.transact(lambda tx: tx._database.execute("DELETE FROM nowhere"))
        assert said.value.misconfigured
        assert not said.value.final
        assert await store.transact(lambda tx: tx.meta("id")) is not None
        await store.close()


async def test_a_login_with_a_lock_timeout_waits(postgres_database: str) -> None:
    store = await open_store(postgres_database)
    store._database.connection.execute("SET lock_timeout = '20ms'")
    with psycopg.connect(postgres_database) as other:
        other.execute("SELECT 1 FROM archive FOR UPDATE")
        with pytest.raises(StoreUnreachable, match=r"lock timeout\. Something else holds locks") as said:
            await store.transact(lambda tx: tx.archive([], 3))
        assert not said.value.misconfigured
    await store.transact(lambda tx: tx.archive([], 3))
    await store.close()

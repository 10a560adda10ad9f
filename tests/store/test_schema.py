"""The tables: however a database got them, they are the same; and databases of other versions are told apart."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory

from flowkit.errors import UsageError
from flowkit.store import open_store, schema, schema_status, upgrade_schema
from flowkit.store.address import database_at
from flowkit.store.attempt import attempt
from flowkit.store.database import Database
from flowkit.store.migrations import config, upgrade


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flowkit.db"
    return request.getfixturevalue("empty_postgres_database")


def description(database: Database) -> list[tuple[str, ...]]:
    """Every table, column and index, as the database itself words them."""
    if database.url.startswith("sqlite"):
        made = attempt(database, lambda d: d.select("SELECT type, name, sql FROM sqlite_master ORDER BY name"))
        names = [name for kind, name, _ in made if kind == "table"]
        found = [
            (table, *(str(part) for part in row))
            for table in names
            for row in attempt(database, lambda d, table=table: d.select(f"PRAGMA table_xinfo({table})"))
        ]
        return found + [(name, re.sub(r"\s+", "", sql or "")) for kind, name, sql in made if kind == "index"]
    columns = (
        "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, collation_name, column_default "
        "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 3"
    )
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    room = "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL ORDER BY 1"
    return attempt(database, lambda d: d.select(columns) + d.select(indexes) + d.select(room))


def test_migrations_end_in_the_same_schema_as_the_tables(empty_url: str, tmp_path: Path) -> None:
    database = database_at(empty_url)
    upgrade(database, "head")
    migrated = description(database)
    assert schema.status(database).current
    if empty_url.startswith("sqlite"):
        database.close()
        database = database_at(f"sqlite:///{tmp_path}/other.db")
    else:
        attempt(database, lambda d: d.execute("DROP SCHEMA public CASCADE"))
        attempt(database, lambda d: d.execute("CREATE SCHEMA public"))
    schema.prepare(database, upgrade=True)
    assert description(database) == migrated
    assert len(migrated) > 10
    database.close()


def test_versions_are_those_of_the_migrations() -> None:
    steps = ScriptDirectory.from_config(config()).walk_revisions()
    assert tuple(step.revision for step in steps)[::-1] == schema.VERSIONS


async def test_an_older_database_is_migrated_or_refused(empty_url: str) -> None:
    database = database_at(empty_url)
    upgrade(database, "0001")
    database.close()
    told = rf"has schema 0001, this FlowKit works with {schema.HEAD}\. Run 'flowkit db upgrade'"
    with pytest.raises(UsageError, match=told):
        await open_store(empty_url, upgrade=False)
    store = await open_store(empty_url)
    assert await store.query(lambda queries: queries.runs(limit=1)) == ([], None)
    await store.close()
    assert (await schema_status(empty_url)).version == schema.HEAD


async def test_a_newer_database_is_refused(empty_url: str) -> None:
    await upgrade_schema(empty_url)
    database = database_at(empty_url)
    attempt(database, lambda d: d.execute("UPDATE alembic_version SET version_num = '0999'"))
    database.close()
    with pytest.raises(UsageError, match=r"was made by a newer FlowKit \(schema 0999, .* Upgrade FlowKit"):
        await open_store(empty_url)
    with pytest.raises(UsageError, match="newer FlowKit"):
        await schema_status(empty_url)


async def test_status_before_and_after(empty_url: str) -> None:
    before = await schema_status(empty_url)
    assert (before.version, before.current) == (None, False)
    assert await upgrade_schema(empty_url) == await schema_status(empty_url)
    assert (await schema_status(empty_url)).current


async def test_many_open_a_fresh_database_at_once(empty_url: str) -> None:
    stores = await asyncio.gather(*(open_store(empty_url) for _ in range(4)))
    ids = {await store.query(lambda queries: (queries.meta("id"), queries.meta("secret"))) for store in stores}
    for store in stores:
        await store.close()
    assert len(ids) == 1
    [(store_id, secret)] = ids
    assert re.fullmatch("[0-9a-f]{32}", store_id or "")
    assert re.fullmatch("[0-9a-f]{64}", secret or "")


def test_opening_an_existing_store_is_quick(tmp_path: Path) -> None:
    """No SQLAlchemy, no alembic."""
    url = f"sqlite:///{tmp_path}/flowkit.db"
    asyncio.run(upgrade_schema(url))
    program = (
        "import asyncio, sys\nfrom flowkit.store import open_store\n"
        f"async def main():\n    store = await open_store({url!r})\n    await store.close()\n"
        "asyncio.run(main())\n"
        "print([name for name in ('sqlalchemy', 'alembic', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    begun = time.perf_counter()
    database = database_at(url)
    schema.prepare(database, upgrade=True)
    database.close()
    assert time.perf_counter() - begun < 0.5


async def test_migrations_wait_for_each_other(empty_postgres_database: str) -> None:
    """Three processes want to make the tables; two of them wait, and find them made."""
    program = (
        "from flowkit.store.address import database_at; from flowkit.store.migrations import upgrade; "
        f"upgrade(database_at({empty_postgres_database!r}), 'head')"
    )
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program) for _ in range(3)]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    with psycopg.connect(empty_postgres_database) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)

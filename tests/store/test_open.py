"""Opening a store: what an address means, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from flowkit.errors import StoreInUse, StoreUnreachable, UsageError
from flowkit.store import Inline, open_store
from flowkit.store.address import database_at
from tests.services.postgres import with_database


async def test_a_relative_path_makes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store("sqlite:///.flowkit/flowkit.db")
    assert store.url == "sqlite:///.flowkit/flowkit.db"
    await store.close()
    assert (tmp_path / ".flowkit" / "flowkit.db").is_file()


@pytest.mark.parametrize(
    "url", ["", "flowkit.db", "mysql://u:s3cret@h/d", "sqlite:relative.db", "sqlite://file.db", "postgresql://"]
)
async def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="Write sqlite:///path/to/file") as caught:
        await open_store(url)
    assert "s3cret" not in str(caught.value)


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "flowkit.store.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'flowkit-mq\[postgres\]'"):
        await open_store("postgresql://localhost/x")


async def test_files_that_are_no_store(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database, but long enough to be looked at " * 50)
    for path, reason in (
        (text, "the file is not an SQLite database"),
        (tmp_path, "the file cannot be opened"),
        (text / "below.db", "File exists|Not a directory"),
    ):
        with pytest.raises(StoreUnreachable, match=reason):
            await open_store(f"sqlite:///{path}")


async def test_a_locked_file_says_so_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.store.sqlite.BUSY", 0.05)
    path = tmp_path / "flowkit.db"
    store = await open_store(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnreachable, match="locked by another process"):
        await store.transact(lambda tx: tx.set_meta("k", "v"))
    assert await store.query(lambda q: q.meta("k")) is None  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    await store.transact(lambda tx: tx.set_meta("k", "v"))
    assert await store.query(lambda q: q.meta("k")) == "v"
    await store.close()


async def test_a_damaged_file_is_the_end_and_a_locked_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flowkit.db"
    await (await open_store(f"sqlite:///{path}")).close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)  # all pages but the first
    path.write_bytes(raw)
    with pytest.raises(StoreUnreachable, match=r"damaged\. Bring back a copy") as caught:
        await open_store(f"sqlite:///{path}")
    assert caught.value.final


async def test_a_full_disk_says_so_and_writes_nothing(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/flowkit.db")
    database = store._database
    database.connection.execute(f"PRAGMA max_page_count = {database.select('PRAGMA page_count')[0][0] + 2}")
    with pytest.raises(StoreUnreachable, match="the disk is full"):
        await store.transact(lambda tx: [tx.set_meta(f"k{n}", "x" * 1000) for n in range(50)])
    assert await store.query(lambda q: q.meta("k0")) is None
    database.connection.execute("PRAGMA max_page_count = 1000000")
    await store.transact(lambda tx: tx.set_meta("k0", "v"))
    assert await store.query(lambda q: q.meta("k0")) == "v"
    await store.close()


async def test_one_coordinator_for_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/flowkit.db"
    program = (
        "import asyncio, sys\nfrom flowkit.store import open_store\n"
        f"async def main():\n    store = await open_store({url!r}, lock=True)\n"
        "    print('open', flush=True)\n    sys.stdin.read()\n"
        "asyncio.run(main())\n"
    )
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert first.stdout
    assert await first.stdout.readline() == b"open\n"
    with pytest.raises(StoreInUse, match="another coordinator holds its lock"):
        await open_store(url, lock=True)
    await (await open_store(url)).close()  # who reads takes no lock
    first.kill()
    await first.communicate()
    store = await open_store(url, lock=True)
    with pytest.raises(StoreInUse):
        await open_store(url, lock=True)
    await store.close()
    await (await open_store(url, lock=True)).close()


async def test_an_executor_that_is_passed_in_stays_open(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        store = await open_store("sqlite://", executor=executor)
        await store.close()
        await store.close()
        assert executor.submit(lambda: 1).result() == 1
    with pytest.raises(RuntimeError, match="is closed"):
        await store.transact(lambda tx: tx.now())


async def test_inline_runs_at_once() -> None:
    store = await open_store("sqlite://", executor=Inline(), clock=lambda: 5.0)
    assert await store.transact(lambda tx: tx.now()) == 5.0
    await store.close()


async def test_postgres_reasons(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    wrong = parts._replace(netloc=f"{parts.username}:wr0ng-canary@{parts.hostname}:{parts.port}").geturl()
    with pytest.raises(StoreUnreachable, match=r": password authentication failed for user \"\w+\"\. Check") as caught:
        await open_store(wrong)
    assert "wr0ng-canary" not in str(caught.value)
    with pytest.raises(StoreUnreachable, match=r': database "nowhere" does not exist\. Check'):
        await open_store(with_database(postgres_url, "nowhere"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(StoreUnreachable, match=r": Connection refused\. Check"):
            await open_store(f"postgresql://u@127.0.0.1:{probe.getsockname()[1]}/d")
    with pytest.raises(StoreUnreachable, match=r"resolve|known"):
        await open_store("postgresql://u@nowhere.invalid/d")


async def test_a_lost_connection_is_opened_again(postgres_database: str) -> None:
    store = await open_store(postgres_database)

    def end_it(tx: object) -> None:
        pid = store._database.connection.info.backend_pid
        with psycopg.connect(postgres_database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        tx.set_meta("k", "v")  # type: ignore[attr-defined]

    with pytest.raises(StoreUnreachable, match=r"terminat|closed"):
        await store.transact(end_it)
    assert await store.query(lambda q: q.meta("k")) is None
    await store.transact(lambda tx: tx.set_meta("k", "v"))
    assert await store.transact(lambda tx: tx.meta("k")) == "v"
    await store.close()


async def test_a_server_that_vanishes_is_noticed_soon(postgres_database: str) -> None:
    asked = f"{postgres_database}{'&' if '?' in postgres_database else '?'}keepalives_idle=60"
    for url, idle in ((postgres_database, "5"), (asked, "60")):
        store = await open_store(url)
        info = store._database.connection.info.get_parameters()
        assert (info["keepalives_idle"], info["keepalives_count"], info["tcp_user_timeout"]) == (idle, "2", "15000")
        await store.close()


async def test_the_clock_of_postgres_decides(postgres_database: str) -> None:
    store = await open_store(postgres_database)
    first, second = await store.transact(lambda tx: (tx.now(), tx.now()))
    assert first == second
    with psycopg.connect(postgres_database) as other:
        [now] = other.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone() or [0]
    assert 0 <= now - first < 60
    await store.close()


def test_passwords_are_masked() -> None:
    assert database_at("postgresql://u:p@ss:w@h/d").url == "postgresql://u:***@h/d"

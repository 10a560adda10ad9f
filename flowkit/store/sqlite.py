"""SQLite: the default store. One writer at a time, durable at each commit (WAL, synchronous=FULL)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkit.addresses import mask
from flowkit.errors import StoreUnreachable
from flowkit.store.database import Down, Row, Values, Verdict
from flowkit.store.sqlite_errors import classify

if TYPE_CHECKING:
    from sqlalchemy import Dialect

SIZES = (1, 4, 16, 64, 256)  # keys in one lookup
BUSY = 5.0  # seconds to wait for another process's transaction


class SQLite:
    """A database in one file, or in memory when ``path`` is None."""

    error: type[Exception] = sqlite3.Error
    skip_locked = ""  # BEGIN IMMEDIATE: whoever writes is alone

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None  # of what others wrote, as this connection counts

    @property
    def url(self) -> str:
        """Its address."""
        return mask(f"sqlite:///{self._path}") if self._path else "sqlite://"

    @property
    def engine_url(self) -> str:
        """What SQLAlchemy calls it."""
        return "sqlite://"

    def connect(self) -> sqlite3.Connection:
        """A connection of its own, for SQLAlchemy."""
        try:
            return sqlite3.connect(self._path or ":memory:", timeout=BUSY)
        except sqlite3.Error as error:
            raise _unreachable(self.url, error) from None

    def open(self) -> None:
        """Connect; the folder is made when it is missing."""
        if self._connection:
            return
        try:
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path or ":memory:",
                timeout=BUSY,
                isolation_level=None,  # transactions begin and end where we say so
                check_same_thread=False,  # close() may come from the last executor standing
                cached_statements=256,
            )
        except OSError as error:
            raise StoreUnreachable(self.url, f"{error.strerror}: {error.filename}") from None
        except sqlite3.Error as error:
            raise _unreachable(self.url, error) from None
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            connection.close()
            raise _unreachable(self.url, error) from None
        self._connection, self._version = connection, None

    def close(self) -> None:
        """Disconnect."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def begin(self) -> None:
        """Take the write lock at once: a transaction that reads first and writes later could not be repeated."""
        self.connection.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """Begin with a snapshot; writers go on."""
        self.connection.execute("BEGIN")

    def alone(self) -> bool:
        """Whether no other connection has written meanwhile: https://sqlite.org/pragma.html#pragma_data_version."""
        before, ((self._version,),) = self._version, self.connection.execute("PRAGMA data_version")
        return self._version == before

    def commit(self) -> None:
        """Make it durable."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Forget it."""
        if self._connection and self._connection.in_transaction:  # a full disk may have rolled it back already
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def now(self) -> float:
        """Unix seconds by this process's clock."""
        return self._clock()

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], *, new_only: bool = False) -> None:
        """Add rows in one go."""
        self.connection.executemany(_insert(table, tuple(columns), new_only), rows)

    def update(
        self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row], *, only: str = "",
        wait: bool = True,
    ) -> None:  # fmt: skip
        """Change rows in one go."""
        del wait  # nobody else has locks
        self.connection.executemany(_update(table, tuple(keys), tuple(columns), only), rows)

    def copy(
        self, table: str, keys: Sequence[str], columns: Sequence[str], same: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Add a copy of rows in one go."""
        self.connection.executemany(_copy(table, tuple(keys), tuple(columns), tuple(same)), rows)

    def delete(self, table: str, keys: Sequence[str], rows: Sequence[Row]) -> None:
        """Remove rows in one go."""
        where = " AND ".join(f"{key} = ?" for key in keys)
        self.connection.executemany(f"DELETE FROM {table} WHERE {where}", rows)

    def lookup(
        self, select: str, table: str, keys: Sequence[str], rows: Sequence[Row], *, only: str = "", group: str = "",
        lock: bool = False,
    ) -> list[Row]:  # fmt: skip
        """Find rows by many keys, in statements over a few fixed numbers of keys.

        So they stay prepared. A statement for each key would cost 14 µs, this costs 4.
        """
        del lock  # BEGIN IMMEDIATE has locked everything
        found: list[Row] = []
        for first in range(0, len(rows), SIZES[-1]):
            part = rows[first : first + SIZES[-1]]
            size = next(size for size in SIZES if size >= len(part))
            values = [value for row in part for value in row]
            values += [None] * (size * len(keys) - len(values))  # NULL equals nothing
            found += self.connection.execute(_lookup(select, table, tuple(keys), (only, group), size), values)
        return found

    def first(self, select: str, table: str, key: str, rows: Sequence[Row], *, only: str, order: str) -> list[Row]:
        """The first rows for each value of a key: a statement for each, for LIMIT takes no column here."""
        del table
        statement = f"{select} WHERE t.{key} = ? AND {only} ORDER BY {order} LIMIT ?"
        return [row for given in rows for row in self.connection.execute(statement, given)]

    def lock_names(self, names: Sequence[str]) -> None:
        """BEGIN IMMEDIATE has locked everything."""

    def holds(self, column: str, value: str) -> str:
        """A condition on the bytes in a column."""
        return f"instr({column}, :{value}) > 0"

    def select(self, statement: str, values: Values | None = None) -> list[Row]:
        """Rows of one statement."""
        return self.connection.execute(statement, values or {}).fetchall()

    def execute(self, statement: str, values: Values | None = None) -> int:
        """Run one statement and return how many rows it changed."""
        return self.connection.execute(statement, values or {}).rowcount

    def id_in(self, value: UUID) -> bytes:
        """A UUID as its 16 bytes."""
        return value.bytes

    def id_out(self, value: bytes) -> UUID:
        """A UUID from its 16 bytes."""
        return UUID(bytes=value)

    def verdict(self, error: Exception) -> Verdict:
        """Locked and full files are reasons to wait, a damaged one is the end; values may be at fault."""
        return classify(error)

    def compile(self, statement: Any) -> tuple[str, Values]:
        """A statement of SQLAlchemy Core as text."""
        compiled = statement.compile(dialect=dialect(), compile_kwargs={"render_postcompile": True})
        return compiled.string, compiled.construct_params()

    def exists(self, table: str) -> bool:
        """Whether there is such a table."""
        return bool(self.select("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :table", {"table": table}))

    def lock_schema(self) -> None:
        """The write lock does it."""

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of the driver."""
        if not self._connection:
            raise StoreUnreachable(self.url, "it is closed")
        return self._connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL. Where several do that to a new file at once, SQLite says busy without any waiting."""
    give_up = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


@cache
def dialect() -> Dialect:
    """How SQLAlchemy writes for SQLite, with ``:name`` for values."""
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect(paramstyle="named")


@cache
def _lookup(select: str, table: str, keys: tuple[str, ...], ends: tuple[str, str], size: int) -> str:
    only, group = ends
    marks = ", ".join([f"({', '.join('?' * len(keys))})"] * size)
    # CROSS JOIN is how SQLite is told the order: from the keys to the rows.
    from_keys = select.replace(f"FROM {table} AS t", f"FROM k CROSS JOIN {table} AS t", 1)
    where = " AND ".join([*(f"t.{key} = k.{key}" for key in keys), *([only] if only else [])])
    return (
        f"WITH k ({', '.join(keys)}) AS (VALUES {marks}) {from_keys} WHERE {where}{f' GROUP BY {group}' * bool(group)}"
    )


@cache
def _insert(table: str, columns: tuple[str, ...], new_only: bool) -> str:  # noqa: FBT001
    marks = ", ".join("?" * len(columns))
    return f"INSERT {'OR IGNORE ' * new_only}INTO {table} ({', '.join(columns)}) VALUES ({marks})"


@cache
def _copy(table: str, keys: tuple[str, ...], columns: tuple[str, ...], same: tuple[str, ...]) -> str:
    marks = [f"?{place}" for place in range(1, len(keys) + len(columns) + 1)]
    where = " AND ".join(f"t.{key} = {mark}" for key, mark in zip(keys, marks, strict=False))
    values = ", ".join([*marks[len(keys) :], *(f"t.{name}" for name in same)])
    return f"INSERT INTO {table} ({', '.join(columns + same)}) SELECT {values} FROM {table} AS t WHERE {where}"


@cache
def _update(table: str, keys: tuple[str, ...], columns: tuple[str, ...], only: str) -> str:
    marks = [f"?{place}" for place in range(1, len(keys) + len(columns) + 1)]
    setting = ", ".join(f"{name} = {mark}" for name, mark in zip(columns, marks[len(keys) :], strict=True))
    same = [f"t.{name} = {mark}" for name, mark in zip(keys, marks, strict=False)]
    where = " AND ".join([*same, *([only] if only else [])])
    return f"UPDATE {table} AS t SET {setting} WHERE {where}"


def _unreachable(url: str, error: sqlite3.Error) -> StoreUnreachable:
    verdict = classify(error)
    return StoreUnreachable(url, verdict.why, final=isinstance(verdict, Down) and verdict.final)

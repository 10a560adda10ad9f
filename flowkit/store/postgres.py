"""PostgreSQL: the store of several coordinators. A batch is one statement over arrays."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from flowkit.addresses import mask
from flowkit.errors import StoreUnreachable
from flowkit.store.conninfo import conninfo, reason
from flowkit.store.database import NAMES_LOCK, SCHEMA_LOCK, Down, Row, Values, Verdict
from flowkit.store.portions import portions
from flowkit.store.postgres_errors import Meaning, classify, meaning

if TYPE_CHECKING:
    from sqlalchemy import Dialect

NOW = "SELECT extract(epoch FROM now())::float8"
BUCKETS = 64  # advisory locks for any number of names: the server has room for some thousands in all
# A transaction that stands still holds its locks: a process that was stopped in the middle of one, or whose machine is
# gone, must not hold up the other coordinators for longer. The longest that computes takes a few seconds.
IDLE = 30  # seconds


class PostgreSQL:
    """A database behind one synchronous connection, which is opened again after it was lost."""

    error: type[Exception] = psycopg.Error
    skip_locked = "FOR UPDATE OF t SKIP LOCKED"

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None) -> None:
        self._address = url
        self._clock = clock
        self._now: float | None = None  # of this transaction
        self._prepares = True  # prepared statements stay with the connection
        self._begin_with = ""  # what each transaction has to set for itself
        self._connection: psycopg.Connection[Row] | None = None
        self._types: dict[tuple[str, str], str] = {}  # (table, column) -> type

    @property
    def url(self) -> str:
        """Its address with the password masked."""
        return mask(self._address)

    @property
    def engine_url(self) -> str:
        """What SQLAlchemy calls it."""
        return "postgresql+psycopg://"

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its own, for SQLAlchemy."""
        try:
            # Behind a pooler no prepared statement is where it was.
            return psycopg.connect(conninfo(self._address), prepare_threshold=None)
        except psycopg.Error as error:
            raise StoreUnreachable(self.url, reason(error, self._address)) from None

    def open(self) -> None:
        """Connect, unless it is connected."""
        if self._connection and not self._connection.closed:
            return
        given = conninfo(self._address)
        try:
            self._connection = psycopg.connect(given, autocommit=True)
            self._configure(self._connection)
        except psycopg.Error as error:
            self.close()
            raise StoreUnreachable(self.url, reason(error, self._address)) from None

    def _configure(self, connection: psycopg.Connection[Row]) -> None:
        """Set what holds for all transactions; behind a pooler each one may have another server, so it sets it itself.

        A pooler such as PgBouncer makes up the process id that a client is told when it connects.
        """
        settings = f"idle_in_transaction_session_timeout = '{IDLE}s'"
        found = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
        if found != (connection.info.backend_pid,) or not self._prepares:
            connection.prepare_threshold = None
            self._begin_with = f"SET LOCAL {settings}; "
        else:
            connection.execute(f"SET {settings}", prepare=False)
            self._begin_with = ""

    def close(self) -> None:
        """Disconnect."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def begin(self) -> None:
        """Begin a transaction that writes; the time, which nearly all of them ask for, comes with it."""
        # What is locked is read as it is when the lock comes, whatever the session's default would be.
        begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._begin_with}{NOW}"
        begun = self.connection.execute(begin, prepare=False)  # several statements cannot be prepared
        while begun.nextset():
            pass
        self._now = _moment(begun)

    def begin_reading(self) -> None:
        """Begin with a snapshot."""
        self._now = None
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {self._begin_with}"
        self.connection.execute(begin, prepare=False)

    def alone(self) -> bool:
        """Nobody can tell: another coordinator may have written anything."""
        return False

    def commit(self) -> None:
        """Make it durable."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Forget it."""
        if self._connection and not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.execute("ROLLBACK")
                return
            self._connection.close()

    def now(self) -> float:
        """Unix seconds when this transaction began, by the database's clock unless one was passed in."""
        if self._clock:
            return self._clock()
        if self._now is None:
            self._now = _moment(self.connection.execute(NOW))
        return self._now

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], *, new_only: bool = False) -> None:
        """Add rows in one statement."""
        statement = (
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {self._unnest(table, columns)}"
            f"{' ON CONFLICT DO NOTHING' * new_only}"
        )
        self._write(statement, table, columns, rows)

    def update(
        self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row], *, only: str = "",
        wait: bool = True,
    ) -> None:  # fmt: skip
        """Change rows in one statement."""
        names = (*keys, *columns)
        same = " AND ".join([*(f"t.{key} = v.of_{key}" for key in keys), *([only] if only else [])])
        changed = f"{self._unnest(table, names)} AS v ({', '.join([*(f'of_{key}' for key in keys), *columns])})"
        setting = ", ".join(f"{name} = v.{name}" for name in columns)
        if wait:
            statement = f"UPDATE {table} AS t SET {setting} FROM {changed} WHERE {same}"
        else:
            free = f"SELECT t.ctid AS place, v.* FROM {table} AS t JOIN {changed} ON {same} {self.skip_locked}"
            statement = f"WITH v AS ({free}) UPDATE {table} AS t SET {setting} FROM v WHERE t.ctid = v.place"
        self._write(statement, table, names, rows)

    def copy(
        self, table: str, keys: Sequence[str], columns: Sequence[str], same: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Add a copy of rows in one statement."""
        names = (*keys, *columns)
        given = f"{self._unnest(table, names)} AS v ({', '.join([*(f'of_{key}' for key in keys), *columns])})"
        values = ", ".join([*(f"v.{name}" for name in columns), *(f"t.{name}" for name in same)])
        from_rows = f"FROM {given} JOIN {table} AS t ON {' AND '.join(f't.{key} = v.of_{key}' for key in keys)}"
        statement = f"INSERT INTO {table} ({', '.join((*columns, *same))}) SELECT {values} {from_rows}"
        self._run(statement, self._arrays(table, names, rows))

    def delete(self, table: str, keys: Sequence[str], rows: Sequence[Row]) -> None:
        """Remove rows in one statement."""
        same = " AND ".join(f"t.{key} = v.{key}" for key in keys)
        gone = f"{self._unnest(table, keys)} AS v ({', '.join(keys)})"
        self._run(f"DELETE FROM {table} AS t USING {gone} WHERE {same}", self._arrays(table, keys, rows))

    def lookup(
        self, select: str, table: str, keys: Sequence[str], rows: Sequence[Row], *, only: str = "", group: str = "",
        lock: bool = False,
    ) -> list[Row]:  # fmt: skip
        """Find rows by many keys in one statement."""
        mine = ", ".join(f"t.{key}" for key in keys)
        where = f"({mine}) IN (SELECT * FROM {self._unnest(table, keys)})"
        end = f" GROUP BY {group}" if group else f" ORDER BY {mine} FOR UPDATE OF t" if lock else ""
        statement = f"{select} WHERE {where}{f' AND {only}' * bool(only)}{end}"
        return self._run(statement, self._arrays(table, keys, rows)).fetchall()

    def first(self, select: str, table: str, key: str, rows: Sequence[Row], *, only: str, order: str) -> list[Row]:
        """The first rows for each value of a key, in one statement."""
        given = f"unnest(%b::{self._type(table, key)}[], %b::bigint[]) AS v (value, count)"
        own = f"{select} WHERE t.{key} = v.value AND {only} ORDER BY {order} LIMIT v.count {self.skip_locked}"
        values = [[value for value, _ in rows], [count for _, count in rows]]
        return self._run(f"SELECT f.* FROM {given} CROSS JOIN LATERAL ({own}) AS f", values).fetchall()

    def lock_names(self, names: Sequence[str]) -> None:
        """Take advisory locks, a few for any number of names, all of them in one order."""
        buckets = sorted({zlib.crc32(name.encode()) % BUCKETS for name in names})
        self._run(f"SELECT pg_advisory_xact_lock({NAMES_LOCK}, bucket) FROM unnest(%b::int4[]) AS bucket", [buckets])

    def holds(self, column: str, value: str) -> str:
        """A condition on the bytes in a column."""
        return f"position(:{value}::bytea IN {column}) > 0"

    def select(self, statement: str, values: Values | None = None) -> list[Row]:
        """Rows of one statement."""
        return self._run(_placeholders(statement), values).fetchall()

    def execute(self, statement: str, values: Values | None = None) -> int:
        """Run one statement and return how many rows it changed."""
        return self._run(_placeholders(statement), values).rowcount

    def id_in(self, value: UUID) -> UUID:
        """The driver takes it as it is."""
        return value

    def id_out(self, value: UUID) -> UUID:
        """The driver gives it as it is."""
        return value

    def verdict(self, error: Exception) -> Verdict:
        """Lost races are tried again; a lost connection and a server in trouble are reasons to wait."""
        if meaning(getattr(error, "sqlstate", None)) is Meaning.LOST_STATEMENTS:
            self._prepares = False  # something between here and the server hands out its connections
        verdict = classify(error, reason(error, self._address))
        lost = self._connection is None or self._connection.closed
        return Down(verdict.why, reconnect=True) if lost and not isinstance(verdict, Down) else verdict

    def compile(self, statement: Any) -> tuple[str, Values]:
        """A statement of SQLAlchemy Core as text."""
        compiled = statement.compile(dialect=dialect(), compile_kwargs={"render_postcompile": True})
        return compiled.string, getattr(compiled, "params", None) or {}

    def exists(self, table: str) -> bool:
        """Whether there is such a table where names are looked for.

        Read from the catalog itself: ``to_regclass`` may answer from before the schema lock was taken.
        """
        found = "SELECT 1 FROM pg_class WHERE relname = :table AND relkind = 'r' AND pg_table_is_visible(oid)"
        return bool(self.select(found, {"table": table}))

    def lock_schema(self) -> None:
        """Keep other processes from changing the schema until the transaction ends."""
        self.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")

    @property
    def connection(self) -> psycopg.Connection[Row]:
        """The connection of the driver."""
        if not self._connection:
            raise StoreUnreachable(self.url, "it is closed")
        return self._connection

    def _run(self, statement: str, values: Any) -> psycopg.Cursor[Row]:
        # binary: payloads come as they are, not as hexadecimal text
        return self.connection.execute(statement, values or None, binary=True)

    def _write(self, statement: str, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        for part in portions(rows):
            self._run(statement, self._arrays(table, columns, part))

    def _unnest(self, table: str, columns: Sequence[str]) -> str:
        return f"unnest({', '.join(f'%b::{self._type(table, column)}[]' for column in columns)})"

    def _arrays(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> list[list[Any]]:
        arrays = [list(column) for column in zip(*rows, strict=True)]
        for place, column in enumerate(columns):
            if self._type(table, column) == "double precision":  # an array has one type: no integers among them
                arrays[place] = [None if value is None else float(value) for value in arrays[place]]
        return arrays

    def _type(self, table: str, column: str) -> str:
        if not self._types:
            found = self.select(
                "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_attribute AS a "
                "JOIN pg_class AS c ON c.oid = a.attrelid "
                "WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r' AND pg_table_is_visible(c.oid) "
                "AND c.relnamespace <> 'pg_catalog'::regnamespace"
            )
            self._types = {(name, attribute): kind for name, attribute, kind in found}
        return self._types[table, column]


def _moment(cursor: psycopg.Cursor[Row]) -> float:
    found = cursor.fetchone()
    assert found is not None
    return float(found[0])


@cache
def dialect() -> Dialect:
    """How SQLAlchemy writes for psycopg."""
    from sqlalchemy.dialects.postgresql import psycopg as driver

    return driver.dialect()  # type: ignore[no-untyped-call]


@cache
def _placeholders(statement: str) -> str:
    """``:name`` as psycopg wants it; ``::type`` stays."""
    return re.sub(r"(?<![:\w]):([a-z_][a-z0-9_]*)", r"%(\1)s", statement)

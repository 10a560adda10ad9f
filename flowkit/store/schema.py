"""Which version of the tables a database has, and how it gets the newest one.

A fresh database is made from ``tables`` at once, an older one by alembic; a test proves that both end in the same
schema. Opening a database of the newest version imports neither alembic nor SQLAlchemy.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

from flowkit.errors import UsageError
from flowkit.store.attempt import attempt
from flowkit.store.database import Database

VERSIONS = tuple(f"{number:04}" for number in range(1, 12))  # every version there ever was, oldest first
HEAD = VERSIONS[-1]


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What ``flowkit db status`` says."""

    url: str  # password masked
    version: str | None  # None: no tables yet
    head: str  # the version this FlowKit works with

    @property
    def current(self) -> bool:
        """Whether nothing is to be done."""
        return self.version == self.head


def status(database: Database) -> SchemaStatus:
    """The version it has and the one it should have.

    Raises:
        UsageError: it was made by a newer FlowKit.
        StoreUnreachable: it cannot be reached.
    """
    version = attempt(database, _version, reading=True)
    if version is not None and version not in VERSIONS:
        raise UsageError(
            f"store {database.url} was made by a newer FlowKit (schema {version}, this one knows up to {HEAD}). "
            "Upgrade FlowKit: pip install --upgrade flowkit-mq"
        )
    return SchemaStatus(database.url, version, HEAD)


def prepare(database: Database, *, upgrade: bool) -> None:
    """Make the database ready for use: newest tables, and the facts that every store has.

    Raises:
        UsageError: it has another version and ``upgrade`` is off, or it is newer than this FlowKit.
    """
    found = status(database)
    if found.version is None:
        attempt(database, _create)
        found = status(database)  # another process may have been first, with another version
    if not found.current:
        if not upgrade:
            raise UsageError(
                f"store {found.url} has schema {found.version}, this FlowKit works with {found.head}. "
                "Run 'flowkit db upgrade'."
            )
        _migrate(database)
    if not attempt(database, _has_facts, reading=True):
        attempt(database, _add_facts)


def _version(database: Database) -> str | None:
    if not database.exists("alembic_version"):
        return None
    found = database.select("SELECT version_num FROM alembic_version")
    return found[0][0] if found else None


def _create(database: Database) -> None:
    from sqlalchemy.schema import CreateIndex, CreateTable

    from flowkit.store.tables import metadata

    database.lock_schema()
    if _version(database):
        return
    for table in metadata.sorted_tables:
        database.execute(database.compile(CreateTable(table))[0])
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            database.execute(database.compile(CreateIndex(index))[0])
    database.execute(  # as alembic makes it
        "CREATE TABLE alembic_version "
        "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    database.execute("INSERT INTO alembic_version (version_num) VALUES (:head)", {"head": HEAD})


def _migrate(database: Database) -> None:
    from flowkit.store.migrations import upgrade

    database.close()  # SQLite: alembic writes on a connection of its own
    upgrade(database, HEAD)


def _has_facts(database: Database) -> bool:
    return bool(database.select("SELECT 1 FROM meta WHERE key = 'id'"))


def _add_facts(database: Database) -> None:
    """The id names the store to the broker; the ids of tasks are made from the secret: nobody can guess them."""
    for key, value in (("secret", secrets.token_hex(32)), ("id", uuid.uuid4().hex)):
        database.execute(
            "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT DO NOTHING", {"key": key, "value": value}
        )
    database.execute("INSERT INTO archive (id, until) VALUES (1, 0) ON CONFLICT DO NOTHING")

"""From the address of a store to its database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowkit.addresses import flaw, mask
from flowkit.errors import UsageError
from flowkit.store.database import Database
from flowkit.store.sqlite import SQLite

FORMS = "sqlite:///path/to/file.db, sqlite:// (in memory) or postgresql://user@host/database"


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite address; None for one in memory and for other databases.

    Raises:
        UsageError: a newline or another control character in it, or a blank around it, would name another file.
    """
    _check(url)
    scheme, _, rest = url.partition("://")
    path = rest.removeprefix("/")
    return Path(path) if scheme == "sqlite" and path not in ("", ":memory:") else None


def database_at(url: str, *, clock: Callable[[], float] | None = None) -> Database:
    """The database of an address, not connected yet.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, ``sqlite://`` (in memory) or ``postgresql://…``.
        clock: Unix seconds; without one PostgreSQL's own clock decides, or this machine's for SQLite.

    Raises:
        UsageError: it is no such address, or the driver is not installed.
    """
    _check(url)
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator and (not rest or rest.startswith("/")):
        path = sqlite_path(url)
        return SQLite(path, clock=clock) if clock else SQLite(path)
    if scheme in ("postgresql", "postgres") and rest:
        try:
            from flowkit.store.postgres import PostgreSQL
        except ModuleNotFoundError as error:
            if error.name != "psycopg":
                raise
            raise UsageError(
                "a PostgreSQL store needs the driver psycopg. Install it with: pip install 'flowkit-mq[postgres]'"
            ) from None
        return PostgreSQL(url, clock=clock)
    raise UsageError(f"store address {mask(url)!r} is no store that FlowKit knows. Write {FORMS}.")


def _check(url: str) -> None:
    if (wrong := flaw(url)) is not None:
        raise UsageError(f"store address {mask(url)!r}: {wrong}")

"""The seam between FlowKit and its databases: how a batch is spoken. Each database has one small file behind it.

Statements are shared and written with ``:name`` for their values. What differs, a batch of rows in one go, how rows are
locked, what an error means, is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

Row = tuple[Any, ...]
Values = Mapping[str, Any]

NAMES_LOCK = 0x666C6F77  # the class of its advisory locks on names: "flow"
SCHEMA_LOCK = 0x666C6F776B6974  # PostgreSQL's advisory lock while tables are made or changed: "flowkit" in ASCII


class Down(NamedTuple):
    """The store cannot do it now: wait, and try again.

    Args:
        why: a short reason.
        final: it will not come back by itself, so that waiting is no use.
        advice: what to do about it, as a sentence without its full stop; empty where the address may be wrong.
        misconfigured: a person has to see to it: tables, rights, settings. It is tried again all the same.
        reconnect: the state of the session may be at fault, so that the next try needs a connection of its own.
    """

    why: str
    final: bool = False
    advice: str = ""
    misconfigured: bool = False
    reconnect: bool = False


class Again(NamedTuple):
    """A transaction lost against another one, and is tried again at once, a few times.

    Args:
        why: a short reason.
        data: when every try has failed, the data are at fault, not the others.
        reconnect: as in ``Down``.
    """

    why: str
    data: bool = False
    reconnect: bool = False


class Invalid(NamedTuple):
    """The data cannot be stored: another try ends in the same way."""

    why: str


Verdict = Again | Down | Invalid


class Database(Protocol):
    """One connection, used by one thread."""

    error: type[Exception]  # what its driver raises
    skip_locked: str  # ends a SELECT: lock those rows of ``t`` that nobody else has locked; empty where one is alone

    @property
    def url(self) -> str:
        """The address with the password masked."""

    @property
    def engine_url(self) -> str:
        """The dialect and the driver as SQLAlchemy writes them, without an address: for migrations."""

    def connect(self) -> Any:
        """Make a connection of the driver for somebody else, who closes it: for migrations.

        Raises:
            StoreUnreachable: with a short reason.
        """

    def open(self) -> None:
        """Connect, unless it is connected.

        Raises:
            StoreUnreachable: with a short reason.
        """

    def close(self) -> None:
        """Disconnect. A transaction that is open is rolled back."""

    def begin(self) -> None:
        """Begin a transaction that writes."""

    def begin_reading(self) -> None:
        """Begin a transaction that only reads; nobody waits for it."""

    def alone(self) -> bool:
        """Whether nobody else has written since this was asked last, in an earlier transaction that writes.

        False where nobody can tell, and on a new connection.
        """

    def commit(self) -> None:
        """Make it durable."""

    def rollback(self) -> None:
        """Forget it. Never raises: a connection that cannot is dropped."""

    def now(self) -> float:
        """Unix seconds, by the clock that decides; the same throughout a transaction where the database says it."""

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], *, new_only: bool = False) -> None:
        """Add rows in one go. With ``new_only`` those are left out that break a unique index."""

    def update(
        self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row], *, only: str = "",
        wait: bool = True,
    ) -> None:  # fmt: skip
        """Change rows in one go; each of ``rows`` has the values of the keys, then those of the columns.

        ``only`` is one more condition, over the alias ``t``. Without ``wait``, rows that somebody else has locked are
        left as they are.
        """

    def copy(
        self, table: str, keys: Sequence[str], columns: Sequence[str], same: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Add a copy of rows in one go, without bringing them here.

        Each of ``rows`` has the values of the keys of the original, then those of ``columns`` in the copy; what is in
        ``same`` is taken over.
        """

    def delete(self, table: str, keys: Sequence[str], rows: Sequence[Row]) -> None:
        """Remove the rows that have these values of the keys, in one go."""

    def lookup(
        self, select: str, table: str, keys: Sequence[str], rows: Sequence[Row], *, only: str = "", group: str = "",
        lock: bool = False,
    ) -> list[Row]:  # fmt: skip
        """Find rows by many keys, in any order.

        ``select`` ends where its WHERE would begin and calls the table ``t``; ``only`` is one more condition, ``group``
        a key to group by. With ``lock`` the rows are locked, in the order of their keys.
        """

    def first(self, select: str, table: str, key: str, rows: Sequence[Row], *, only: str, order: str) -> list[Row]:
        """Find the first rows for each value of a key; each of ``rows`` has the value, and how many.

        They are locked, and those that somebody else has locked are left out.
        """

    def lock_names(self, names: Sequence[str]) -> None:
        """Keep off others who lock one of these names, until the transaction ends: the last locks that it takes."""

    def holds(self, column: str, value: str) -> str:
        """A condition: the bytes in a column have those of the value of this name among them."""

    def select(self, statement: str, values: Values | None = None) -> list[Row]:
        """Rows of one statement."""

    def execute(self, statement: str, values: Values | None = None) -> int:
        """Run one statement and return how many rows it changed."""

    def id_in(self, value: UUID) -> Any:
        """A UUID as its driver takes it."""

    def id_out(self, value: Any) -> UUID:
        """A UUID from what its driver gives."""

    def verdict(self, error: Exception) -> Verdict:
        """What an error of its driver means. What is not known to come from the data is a reason to wait."""

    def compile(self, statement: Any) -> tuple[str, Values]:
        """A statement of SQLAlchemy Core as text for ``select`` and its values."""

    def exists(self, table: str) -> bool:
        """Whether there is such a table."""

    def lock_schema(self) -> None:
        """Keep other processes from changing the schema until the transaction ends."""

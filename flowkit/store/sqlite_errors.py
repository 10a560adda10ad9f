"""What an error of SQLite means: the data are at fault, or everybody waits.

Only errors that the data cause may be blamed on a message. Everything else waits, also what nobody has thought of.
Every primary result code stands in one of the four tables; ``OTHERS`` are those that speak for themselves.
"""

from __future__ import annotations

import sqlite3

from flowkit.store.database import Down, Invalid, Verdict

DATA = frozenset({sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})
AWAY = {
    sqlite3.SQLITE_BUSY: "the database is locked by another process",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk fails (I/O error)",
    sqlite3.SQLITE_READONLY: "the file may not be written",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_PROTOCOL: "the file's locks are in disorder",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
}
BROKEN = {
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
}
OTHERS = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # also: no such table, no such column
        sqlite3.SQLITE_INTERNAL,
        sqlite3.SQLITE_ABORT,
        sqlite3.SQLITE_NOTFOUND,
        sqlite3.SQLITE_EMPTY,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_NOTICE,
        sqlite3.SQLITE_WARNING,
    }
)
MISSING = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})  # tables and columns are not as they should be
COMPARE = "Compare the tables with this FlowKit: 'flowkit db status'"


def classify(error: Exception) -> Verdict:
    """What an error of the driver means for the transaction."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte of an extended code
    if code in DATA:
        return Invalid(str(error))
    if code in BROKEN:
        return Down(BROKEN[code], final=True)
    if code in AWAY:
        return Down(AWAY[code])
    return Down(str(error), advice=COMPARE if code in MISSING else "", misconfigured=True)

"""What an error of PostgreSQL means: the data are at fault, the transaction is tried again, or everybody waits.

Only errors that the data cause may be blamed on a message. Everything else waits, also what nobody has thought of: a
message that waits is not lost. Every class of SQLSTATE stands in ``CLASSES``, and a test compares that with the driver.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import assert_never

import psycopg

from flowkit.store.database import Again, Down, Invalid, Verdict


class Meaning(Enum):
    """What an SQLSTATE means for whoever waits for the transaction."""

    DATA = auto()  # the data: another try ends in the same way
    TAKEN = auto()  # another transaction was first; if that is still so after some tries, the data
    LOST = auto()  # another transaction was first
    LOST_STATEMENTS = auto()  # the server behind the connection is another one, without our prepared statements
    WAIT = auto()  # it passes
    PERSON = auto()  # it passes when somebody has seen to it: a bug of FlowKit's, tables, rights, settings


CLASSES = {
    "00": Meaning.WAIT,  # success: no error at all
    "01": Meaning.WAIT,  # warning
    "02": Meaning.WAIT,  # no data
    "03": Meaning.WAIT,  # statement not yet complete
    "08": Meaning.WAIT,  # connection
    "09": Meaning.PERSON,  # triggers
    "10": Meaning.PERSON,  # XQuery
    "0A": Meaning.WAIT,  # not supported: also "cached plan must not change result type", which a new connection ends
    "0B": Meaning.WAIT,  # invalid transaction initiation
    "0F": Meaning.PERSON,  # locators
    "0L": Meaning.PERSON,  # grantors
    "0P": Meaning.PERSON,  # roles
    "0Z": Meaning.PERSON,  # diagnostics
    "20": Meaning.PERSON,  # CASE not found
    "21": Meaning.DATA,  # cardinality: a key twice in one batch
    "22": Meaning.DATA,  # data
    "23": Meaning.DATA,  # constraints
    "24": Meaning.WAIT,  # cursor state
    "25": Meaning.WAIT,  # transaction state: read only after a failover, in failed transaction, idle for too long
    "26": Meaning.LOST_STATEMENTS,  # no such prepared statement
    "27": Meaning.PERSON,  # triggered data change
    "28": Meaning.PERSON,  # authorization
    "2B": Meaning.PERSON,  # dependent privileges
    "2D": Meaning.WAIT,  # transaction termination
    "2F": Meaning.PERSON,  # SQL routines
    "34": Meaning.WAIT,  # cursor name
    "38": Meaning.PERSON,  # external routines
    "39": Meaning.PERSON,  # external routines
    "3B": Meaning.WAIT,  # savepoints
    "3D": Meaning.PERSON,  # no such database
    "3F": Meaning.PERSON,  # no such schema
    "40": Meaning.LOST,  # rollback: serialization, deadlock
    "42": Meaning.PERSON,  # syntax, tables and columns that are not there, rights
    "44": Meaning.DATA,  # WITH CHECK OPTION
    "53": Meaning.WAIT,  # resources: disk full, out of memory, too many connections
    "54": Meaning.DATA,  # limits of the program: a text too long for an index, a statement too complex
    "55": Meaning.WAIT,  # not in the required state: lock_timeout, object in use
    "57": Meaning.WAIT,  # operator: shutdown, crash, starting up, statement_timeout
    "58": Meaning.WAIT,  # system: I/O
    "72": Meaning.WAIT,  # snapshot too old
    "F0": Meaning.PERSON,  # configuration file
    "HV": Meaning.PERSON,  # foreign data
    "P0": Meaning.PERSON,  # PL/pgSQL: somebody's trigger
    "XX": Meaning.WAIT,  # internal
}
CODES = {  # where it is not as in its class
    "08P01": Meaning.WAIT,  # protocol violation: PgBouncer says so of a server that it cannot reach
    "23001": Meaning.TAKEN,  # restrict
    "23503": Meaning.TAKEN,  # foreign key
    "23505": Meaning.TAKEN,  # unique: another coordinator added the same row a moment earlier
    "23P01": Meaning.TAKEN,  # exclusion
    "40003": Meaning.WAIT,  # statement completion unknown
    "42P05": Meaning.LOST_STATEMENTS,  # prepared statement exists already
    "53100": Meaning.PERSON,  # disk full
    "XX001": Meaning.PERSON,  # data corrupted
    "XX002": Meaning.PERSON,  # index corrupted
}
ADVICE = {  # by SQLSTATE, or its first characters; the longest that fits
    "28": "Check the login in the address (--store or FLOWKIT_STORE_URL), then 'flowkit doctor'",
    "42501": "Grant the login of the store's address these rights, or use the login that made the tables",
    "42": "Compare the tables with this FlowKit: 'flowkit db status'",
    "3F": "Compare the tables with this FlowKit: 'flowkit db status'",
    "53100": "Make room on the database's disk",
    "53": "See to the resources of the database server",
    "55": "Something else holds locks or works on the tables: pg_stat_activity shows it",
    "57014": "Something cancels the statement, such as a statement_timeout of the login",
    "XX": "See the log of the database server",
}


def meaning(sqlstate: str | None) -> Meaning:
    """What an SQLSTATE means; without one (the connection is lost), and with one that nobody knows: wait."""
    if sqlstate is None:
        return Meaning.WAIT
    return CODES.get(sqlstate) or CLASSES.get(sqlstate[:2], Meaning.WAIT)


def classify(error: Exception, why: str) -> Verdict:
    """What an error of the driver means for the transaction; ``why`` is its text for people."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is None and isinstance(error, psycopg.DataError):
        return Invalid(why)  # the driver itself refuses a value, such as NUL in text
    found = meaning(state)
    match found:
        case Meaning.DATA:
            return Invalid(why)
        case Meaning.TAKEN:
            return Again(why, data=True)
        case Meaning.LOST:
            return Again(why)
        case Meaning.LOST_STATEMENTS:
            return Again(why, reconnect=True)
        case Meaning.WAIT | Meaning.PERSON:
            # On a connection of its own: settings, prepared statements, and the server itself, may be other ones then.
            return Down(why, advice=_advice(state), misconfigured=found is Meaning.PERSON, reconnect=True)
    assert_never(found)


def _advice(state: str | None) -> str:
    if state is None:
        return ""
    return next((ADVICE[state[:size]] for size in (5, 2) if state[:size] in ADVICE), "")

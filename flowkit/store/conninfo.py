"""A PostgreSQL address as libpq takes it, and what libpq says when it cannot connect."""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flowkit.addresses import ENCODE, mask, scrub
from flowkit.errors import UsageError

# A server that vanishes without a word is noticed in about 15 s; TCP alone would wait for a quarter of an hour or more.
PATIENCE = {
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,  # milliseconds
}


def conninfo(address: str) -> str:
    """What libpq is given: the address, and limits for its patience where the address names none.

    Raises:
        UsageError: it cannot be read, or not in one way only. The words of libpq would quote parts of a password.
    """
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(address).items() if value is not None}
    except psycopg.Error:
        readable = False
    else:
        # libpq ends a password at the first @, and without one before it, the first slash begins the database.
        places = ["host", "port"] if "user" in given else ["host", "port", "dbname"]
        readable = not any("@" in given.get(place, "") for place in places)
    if not readable:
        raise UsageError(
            f"store address {mask(address)!r} cannot be read: expected postgresql://user:password@host:5432/database. "
            f"{ENCODE}, also in the query"
        )
    return make_conninfo(address, **(PATIENCE | {key: given[key] for key in PATIENCE if key in given}))


def reason(error: Exception, address: str) -> str:
    """The part of libpq's words that says what is wrong, such as ``Connection refused``."""
    text = scrub(str(error).strip(), address) or type(error).__name__
    first = next(iter(text.splitlines()))
    first = re.sub(r"^connection failed: |^connection to server at .*? failed: |^connection is bad: ", "", first)
    first = re.sub(r"^connection to server (at|on) .*? failed: ", "", first)
    return first.removeprefix("FATAL:").strip()

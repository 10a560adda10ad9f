"""Runs work in one transaction: connects when needed, tries again what lost against another transaction.

What the database says becomes one of two errors: the store cannot do it now, or it can never keep these data.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from flowkit.errors import StoreUnreachable, Unstorable
from flowkit.store.database import Again, Database, Down, Invalid, Verdict

T = TypeVar("T")
TRIES = 6
NO_VALUE = (OverflowError, UnicodeEncodeError)  # a value that a driver cannot send: a large integer, a lone surrogate


def attempt(database: Database, work: Callable[[Database], T], *, reading: bool = False) -> T:
    """Run ``work`` in one transaction; it may run several times, and counts once.

    Raises:
        StoreUnreachable: with a short reason; nothing was written, unless the connection was lost while committing.
        Unstorable: the database can never keep what ``work`` gave it; nothing was written.
    """
    for tries in range(1, TRIES + 1):
        database.open()
        try:
            if reading:
                database.begin_reading()
            else:
                database.begin()
            result = work(database)
            database.commit()
        except NO_VALUE as error:
            database.rollback()
            raise Unstorable(f"{type(error).__name__}: {error}") from error
        except database.error as error:
            verdict = database.verdict(error)
            database.rollback()
            if isinstance(verdict, Again | Down) and verdict.reconnect:
                database.close()
            if not isinstance(verdict, Again) or tries == TRIES:
                raise _error(database, verdict) from error
            time.sleep(random.uniform(0, 0.01 * tries))  # noqa: S311 - whoever collided comes back at another moment
        except BaseException:
            database.rollback()
            raise
        else:
            return result
    raise AssertionError("the last try returns or raises")


def _error(database: Database, verdict: Verdict) -> StoreUnreachable | Unstorable:
    match verdict:
        case Invalid(why) | Again(why, data=True):
            return Unstorable(why)
        case Again(why):
            # No fault of this transaction's: whoever waits for the store tries again later.
            busy = f"lost against other transactions {TRIES} times: {why}"
            return StoreUnreachable(database.url, busy, advice="Try again later")
        case Down(why, final, advice, misconfigured):
            return StoreUnreachable(database.url, why, final=final, advice=advice, misconfigured=misconfigured)

"""Runs work in one transaction: connect when needed, again when it lost against another one, or say what is down."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from flowkit.errors import StoreUnreachable
from flowkit.store.database import Again, Database, Down

T = TypeVar("T")
TRIES = 6


def attempt(database: Database, work: Callable[[Database], T], *, reading: bool = False) -> T:
    """Run ``work`` in one transaction; it may run several times, and counts once.

    Raises:
        StoreUnreachable: with a short reason; nothing was written, unless the connection was lost while committing.
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
        except database.error as error:
            verdict = database.verdict(error)
            database.rollback()
            if isinstance(verdict, Down):
                raise StoreUnreachable(database.url, verdict.why, final=verdict.final) from error
            if verdict is not Again.AGAIN:
                raise
            if tries == TRIES:
                # No fault of this transaction's: whoever waits for the store tries again later.
                raise StoreUnreachable(database.url, f"lost against other transactions {TRIES} times") from error
            time.sleep(random.uniform(0, 0.01 * tries))  # noqa: S311 - whoever collided comes back at another moment
        except BaseException:
            database.rollback()
            raise
        else:
            return result
    raise AssertionError("the last try returns or raises")

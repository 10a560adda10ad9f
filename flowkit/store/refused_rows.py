"""Rows that this version's models refuse: another version wrote them, or somebody by hand. They stop nobody."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # a verb that only looks would wait for it
    from pydantic import BaseModel

logger = logging.getLogger(__name__)
REFUSED = (ValueError, TypeError, LookupError)  # what a model raises; pydantic's errors are ValueErrors
M = TypeVar("M", bound="BaseModel")


def read_row(model: type[M], raw: bytes, table: str, key: str) -> M | None:
    """Read a message that a row keeps; None, with a warning, when nothing can be made of it."""
    from flowkit.wire.stored import read_stored

    found = read_stored(model, raw)
    if found is None:
        warn_refused(table, key, f"it is no {model.__name__} of this version")
    return found


@lru_cache(maxsize=1_000)
def warn_refused(table: str, key: str, why: str) -> None:
    """Log that a row is left out: once for each reason, however often it is read."""
    logger.warning("table %s: row %r is left out, this version cannot read it: %s", table, key, why,
                   extra={"action": "bad_row", "table": table})  # fmt: skip

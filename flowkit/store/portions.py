"""Rows in portions that one statement can carry.

PostgreSQL ends a connection that sends 1 GiB in one statement, and would end the next one that tries: 65 messages of
the largest size, which may well be committed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowkit.store.database import Row

MOST = 256 * 1024 * 1024  # bytes of payloads in a statement, unless one row has more


def portions(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """All of the rows together, nearly always; otherwise as many at a time as have ``MOST`` bytes, in their order."""
    sizes = [sum(len(value) for value in row if type(value) is bytes) for row in rows]  # all else is short
    if sum(sizes) <= MOST:
        yield rows
        return
    begin = size = 0
    for at, more in enumerate(sizes):
        if size + more > MOST and at > begin:
            yield rows[begin:at]
            begin, size = at, 0
        size += more
    yield rows[begin:]

"""Rows that have more bytes together than one statement can carry."""

from __future__ import annotations

import psycopg
import pytest

from flowkit.store import open_store, portions
from flowkit.store.protocol import DeadLetter


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "MOST", 1_000)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], [[]]),
        ([400, 600], [[400, 600]]),
        ([400, 601], [[400], [601]]),
        ([5_000], [[5_000]]),
        ([1, 5_000, 1, 1], [[1], [5_000], [1, 1]]),
        ([400] * 5, [[400, 400], [400, 400], [400]]),
    ],
)
def test_each_portion_has_as_much_as_may_be(small, sizes: list[int], expected: list[list[int]]) -> None:
    rows = [("r", number, b"x" * size, None) for number, size in enumerate(sizes)]
    parts = list(portions.portions(rows))
    assert [[len(row[2]) for row in part] for part in parts] == expected
    assert [row for part in parts for row in part] == rows


async def test_no_statement_carries_more(small, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute, sent = psycopg.Connection.execute, []

    def measured(self, query, params=None, **more):
        values = [value for array in params or () if isinstance(array, list) for value in array]
        sent.append(sum(len(value) for value in values if type(value) is bytes))
        return execute(self, query, params, **more)

    store = await open_store(postgres_database)
    monkeypatch.setattr(psycopg.Connection, "execute", measured)
    letters = [DeadLetter("r", "d", "q", b"%d" % number * 400, b"{}", 1.0, None) for number in range(10)]
    await store.transact(lambda transaction: transaction.add_dead(letters))
    kept = await store.query(lambda queries: queries.dead(limit=20))
    await store.close()
    assert sorted(one.body for one in kept) == [letter.body for letter in letters]
    assert 400 < max(sent) <= 1_000

"""Rows of coordinators: how far each has committed what was delivered to it."""

from __future__ import annotations

from uuid import UUID

from flowkit.flow.read_progress import ReadProgress
from flowkit.store import Store

A, B = (ReadProgress(UUID(int=number), f"c{number}", 1, 1, 0) for number in (1, 2))


async def test_each_coordinator_has_one_row_and_sees_those_of_all(store: Store) -> None:
    assert await store.transact(lambda tx: tx.record_progress(A)) == [A]
    assert await store.transact(lambda tx: tx.record_progress(B)) == [A, B]
    later = A._replace(beat=1 << 40, attached=1 << 39, committed=(1 << 40) - 1)
    assert await store.transact(lambda tx: tx.record_progress(later)) == [later, B]
    assert await store.transact(lambda tx: tx.record_progress(later)) == [later, B], "an answer to COMMIT was lost"


async def test_a_name_may_be_used_again(store: Store) -> None:
    again = B._replace(name=A.name)
    await store.transact(lambda tx: tx.record_progress(A))
    assert await store.transact(lambda tx: tx.record_progress(again)) == [A, again]


async def test_a_row_that_was_removed_is_written_again(store: Store) -> None:
    for row in (A, B):
        await store.transact(lambda tx, row=row: tx.record_progress(row))
    await store.transact(lambda tx: tx.remove_progress([A.id, B.id, UUID(int=3)]))
    await store.transact(lambda tx: tx.remove_progress([]))
    assert await store.transact(lambda tx: tx.record_progress(B)) == [B]

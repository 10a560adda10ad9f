"""Schedules in the tables."""

from __future__ import annotations

from dataclasses import replace

from flowkit.flow import changes as c
from flowkit.flow.schedules import Missed, Schedule
from flowkit.flow.state import RunStatus
from flowkit.store import Store
from tests.contract.stores import NUL, begun, write

NIGHTLY = Schedule(
    name="nightly", cron="30 2 * * *", timezone="Europe/Berlin", node="report", inputs=b'{"text":"\\u0000"}',
    tags=b'{"k":"\\u0000"}', missed=Missed.ONCE, overlap=True, created_at=1.5, next_at=1000.0, look_at=1000.0,
    last_run="r", skipped_at=7.0, skipped=NUL,
)  # fmt: skip


async def put(store: Store, *schedules: Schedule) -> None:
    for schedule in schedules:
        await store.transact(lambda tx, one=schedule: tx.put_schedule(one))


async def due(store: Store, now: float, limit: int = 99) -> list[tuple[str, bool]]:
    found = await store.transact(lambda tx: tx.due_schedules(now, limit))
    return [(schedule.name, busy) for schedule, busy in found]


async def test_what_is_put_is_found(store: Store) -> None:
    plain = Schedule(name="Plain", cron="* * * * *", timezone="UTC", node="n", created_at=2.0)
    await put(store, NIGHTLY, plain)
    found = await store.query(lambda q: q.schedules())
    assert [row.schedule for row in found] == [plain, NIGHTLY]
    assert {(row.last_status, row.last_started_at, row.last_ended_at) for row in found} == {(None, None, None)}
    assert await store.transact(lambda tx: tx.schedule("nightly")) == NIGHTLY
    assert await store.transact(lambda tx: tx.schedule("nobody")) is None


async def test_one_takes_the_place_of_another_of_its_name_and_is_removed_once(store: Store) -> None:
    other = replace(NIGHTLY, cron="0 3 * * *", overlap=False)
    await put(store, NIGHTLY, other)
    assert [row.schedule for row in await store.query(lambda q: q.schedules())] == [other]
    assert [await store.transact(lambda tx: tx.remove_schedule("nightly")) for _ in range(2)] == [True, False]
    assert await store.query(lambda q: q.schedules()) == []


async def test_those_are_due_that_are_to_be_looked_at_oldest_first(store: Store) -> None:
    times = {"late": 900.0, "now": 1000.0, "soon": 1000.5, "never": None}
    await put(store, *(replace(NIGHTLY, name=name, look_at=time) for name, time in times.items()))
    assert [name for name, _ in await due(store, 1000.0)] == ["late", "now"]
    assert [name for name, _ in await due(store, 2000.0, limit=2)] == ["late", "now"]
    assert await due(store, 899.0) == []


async def test_the_last_run_is_under_way_until_it_has_ended(store: Store) -> None:
    await put(store, NIGHTLY)
    assert await due(store, 1000.0) == [("nightly", False)]  # no such run: it was pruned
    _, changes = begun("r")
    await write(store, changes)
    assert await due(store, 1000.0) == [("nightly", True)]
    await write(store, [c.MoveRun("r", RunStatus.PAUSED)])
    assert await due(store, 1000.0) == [("nightly", True)]
    await write(store, [c.EndRun(run_id="r", status=RunStatus.FAILED, ended_at=1002.0)])
    assert await due(store, 1000.0) == [("nightly", False)]
    (row,) = await store.query(lambda q: q.schedules())
    assert (row.last_status, row.last_started_at, row.last_ended_at) == ("failed", 1000.0, 1002.0)


async def test_what_became_of_many_is_written_together(store: Store) -> None:
    await put(store, *(replace(NIGHTLY, name=name) for name in "abc"))
    moved = [
        replace(NIGHTLY, name="a", next_at=2000.0, look_at=2000.0, last_run="a-1", skipped_at=None, skipped=None),
        replace(NIGHTLY, name="c", next_at=None, look_at=None, skipped_at=1000.0, skipped=f"{NUL} again"),
    ]
    await store.transact(lambda tx: tx.move_schedules(moved))
    await store.transact(lambda tx: tx.move_schedules([]))
    found = await store.query(lambda q: q.schedules())
    assert [row.schedule for row in found] == [moved[0], replace(NIGHTLY, name="b"), moved[1]]
    assert await due(store, 1000.0) == [("b", False)]


async def test_while_somebody_archives_a_coordinator_is_at_work(store: Store) -> None:
    assert await store.query(lambda q: q.coordinated_until()) == 0
    assert await store.transact(lambda tx: tx.archive_claim("c1", 1000.0, 10))
    assert await store.query(lambda q: q.coordinated_until()) == 1010.0

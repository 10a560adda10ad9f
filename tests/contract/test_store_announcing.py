"""The outbox of ends of runs, and refusals of commands, over every store."""

from __future__ import annotations

from uuid import uuid4

import pytest

from flowkit.flow import changes as c
from flowkit.flow.state import RunStatus, Signal
from flowkit.store import Store
from tests.contract.stores import Clock, begun, load, write


async def ended(store: Store, *runs: str, at: float = 1001.0, status: RunStatus = RunStatus.SUCCEEDED) -> None:
    for run_id in runs:
        await write(store, [*begun(run_id)[1], c.EndRun(run_id=run_id, status=status, ended_at=at, message="done")])


async def unannounced(store: Store, before: float, limit: int = 10) -> list[str]:
    found = await store.transact(lambda transaction: transaction.unannounced(before=before, limit=limit))
    return [run.id for run in found]


async def test_an_end_is_found_until_it_is_marked(store: Store, clock: Clock) -> None:
    await ended(store, "r1", "r2")
    clock.now = 1020.0
    assert await unannounced(store, 1001.0) == [], "whoever ended it is announcing it"
    assert await unannounced(store, 1010.0) == ["r1", "r2"]
    assert await unannounced(store, 1010.0) == [], "another coordinator does not announce it too"
    await store.transact(lambda transaction: transaction.mark_announced([("r1", 1001.0)]))
    assert await unannounced(store, 1021.0) == ["r2"]


async def test_ends_that_nobody_heard_count_as_unannounced_again(store: Store, clock: Clock) -> None:
    await ended(store, "before", at=1001.0)
    await ended(store, "unheard", "too", at=1002.0)
    await ended(store, "goes-on", at=1002.0, status=RunStatus.FAILED)
    ends = [("before", 1001.0), ("unheard", 1002.0), ("too", 1002.0), ("goes-on", 1002.0)]
    await store.transact(lambda transaction: transaction.mark_announced(ends))
    await write(store, [c.MoveRun("goes-on", RunStatus.RUNNING)])
    clock.now = 1020.0
    assert await store.transact(lambda transaction: transaction.mark_unannounced(1002.0)) == 2
    assert await unannounced(store, 1020.0) == [], "not before clients have bound their queues again"
    assert await unannounced(store, 1021.0) == ["too", "unheard"]


async def test_ends_come_oldest_first_and_page_by_page(store: Store, clock: Clock) -> None:
    await ended(store, "late", at=1003.0)
    await ended(store, "early", at=1002.0)
    clock.now = 1020.0
    assert await unannounced(store, 1010.0, limit=1) == ["early"]
    assert await unannounced(store, 1010.0, limit=1) == ["late"]


async def test_an_end_has_all_that_its_message_needs(store: Store, clock: Clock) -> None:
    await ended(store, "r1", status=RunStatus.FAILED)
    clock.now = 1020.0
    (run,) = await store.transact(lambda transaction: transaction.unannounced(before=1010.0, limit=1))
    assert (run.id, run.node, run.status, run.message, run.mark) == ("r1", "add", "failed", "done", ("r1", 1001.0))


async def test_what_a_clock_ahead_has_written_is_found(store: Store, clock: Clock) -> None:
    await ended(store, "r1", at=5000.0)
    clock.now = 1020.0
    assert await unannounced(store, 1010.0) == ["r1"]


async def test_the_mark_of_an_earlier_end_is_not_that_of_a_later_one(store: Store, clock: Clock) -> None:
    await ended(store, "r1", status=RunStatus.FAILED)
    await write(store, [c.MoveRun("r1", RunStatus.RUNNING)])
    clock.now = 1020.0
    assert await unannounced(store, 1010.0) == [], "it goes on"
    await write(store, [c.EndRun(run_id="r1", status=RunStatus.FAILED, ended_at=1021.0)])
    await store.transact(lambda transaction: transaction.mark_announced([("r1", 1001.0)]))
    clock.now = 1040.0
    assert await unannounced(store, 1030.0) == ["r1"]


async def test_a_refusal_is_known_by_its_reason_until_it_is_forgotten(store: Store) -> None:
    applied, refused = uuid4(), uuid4()
    notes = [c.NoteCommand("r", applied, "pause", 1.0), c.NoteCommand("r", refused, "resume", 2.0, "it is \0 running")]
    await write(store, [*begun()[1], *notes])
    state = await load(store, commands=frozenset({applied, refused}))
    assert (state.commands, state.refusals) == ({applied, refused}, {refused: "it is \0 running"})
    await store.transact(lambda transaction: transaction.forget_refusals([applied, refused, uuid4()]))
    state = await load(store, commands=frozenset({applied, refused}))
    assert (state.commands, state.refusals) == ({applied}, {}), "what was applied is never applied again"


@pytest.mark.parametrize(("status", "kept"), [("failed", 1), ("succeeded", 0), ("cancelled", 0)])
async def test_signals_are_kept_as_long_as_a_run_can_go_on(store: Store, status: str, kept: int) -> None:
    await write(store, [*begun()[1], c.AddSignal("r", "ok", Signal(uuid4(), b"{}"), 1000.0)])
    await write(store, [c.EndRun(run_id="r", status=RunStatus(status), ended_at=1001.0)])
    assert len(await store.query(lambda queries: queries.signals("r"))) == kept

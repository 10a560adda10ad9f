"""Tasks that wait for a worker for too long, in the tables; and the workers that were heard of."""

from __future__ import annotations

from flowkit.flow import changes as c
from flowkit.flow.state import RunStatus, TaskStatus
from flowkit.store import Store
from flowkit.store.protocol import SentTask
from flowkit.wire import messages as wire
from tests.contract.stores import Clock, begun, settled, task, write


async def sent(store: Store, *tasks: object, at: float = 1001.0) -> None:
    await store.transact(lambda tx: tx.mark_sent([(t.run_id, t.id, t.attempt) for t in tasks], at))


async def overdue(store: Store, limit: int = 99, after: SentTask | None = None, **before: float) -> list[SentTask]:
    return await store.transact(lambda tx: tx.overdue(before, limit, after=after))


async def test_only_what_was_sent_and_nobody_began(store: Store) -> None:
    root, changes = begun()
    others = {
        "running": task("r", "0.1", status=TaskStatus.RUNNING, sent_at=1001.0),
        "held": task("r", "0.2", status=TaskStatus.HELD, held_for="retry", due=1001.0),
        "unsent": task("r", "0.3"),
        "another node": task("r", "0.4", node="sub"),
        "done": task("r", "0.5"),
    }
    await write(store, [*changes, *map(c.AddTask, others.values())])
    await sent(store, root, others["another node"], others["done"])
    await write(store, [settled(others["done"])])
    found = SentTask("r", root.id, "add", 1, "", 1001.0)
    assert await overdue(store, add=1001.5) == [found]
    assert await overdue(store, add=1001.0) == []
    assert {one.node for one in await overdue(store, add=1001.5, sub=1001.5)} == {"add", "sub"}
    assert {one.node for one in await overdue(store, add=1001.0, sub=1001.5)} == {"sub"}
    assert await overdue(store) == []


async def test_not_in_a_run_that_is_paused_or_has_ended(store: Store) -> None:
    root, changes = begun()
    await write(store, changes)
    await sent(store, root)
    await write(store, [c.MoveRun("r", RunStatus.PAUSED)])
    assert await overdue(store, add=2000.0) == []
    await write(store, [c.MoveRun("r", RunStatus.RUNNING)])
    assert len(await overdue(store, add=2000.0)) == 1
    await write(store, [c.EndRun(run_id="r", status=RunStatus.CANCELLED, ended_at=1002.0),
                        c.CancelBelow("r", "", None, 1002.0)])  # fmt: skip
    assert await overdue(store, add=2000.0) == []


async def test_page_by_page(store: Store) -> None:
    roots = []
    for number in range(7):
        root, changes = begun(f"r{number}")
        roots.append(root)
        await write(store, changes)
    await sent(store, *roots)
    pages, after = [], None
    while page := await overdue(store, 3, after, add=2000.0):
        pages.append(len(page))
        after = page[-1]
    assert pages == [3, 3, 1]


async def test_workers_that_were_heard_of(store: Store) -> None:
    for number, (name, stopping) in enumerate([("b", False), ("a", False), ("c", True)]):
        told = wire.Worker(worker=name, nodes=(wire.NodeInfo(name="add"),), stopping=stopping)
        await store.transact(lambda tx, told=told, at=1000.0 + number: tx.record_workers([told], at))
    heard = await store.transact(lambda tx: tx.heard(1000.0))
    assert [(one.worker, [node.name for node in one.nodes]) for one in heard] == [("a", ["add"]), ("b", ["add"])]
    assert [one.worker for one in await store.transact(lambda tx: tx.heard(1000.5))] == ["a"]


async def test_after_a_clock_was_set_back(store: Store, clock: Clock) -> None:
    """What seems to be of the future: tasks count as sent now, and a worker counts when it is heard of again."""
    root, changes = begun()
    other = task("r", "0.1", node="sub")
    await write(store, [*changes, c.AddTask(other)])
    await sent(store, root, other, at=5000.0)
    told = wire.Worker(worker="dead")
    await store.transact(lambda tx: tx.record_workers([told], 5000.0))
    clock.now = 5000.0
    assert [one.worker for one in await store.transact(lambda tx: tx.heard(4985.0))] == ["dead"]
    clock.now = 1400.0
    assert await store.transact(lambda tx: tx.heard(1385.0)) == []
    assert await overdue(store, add=1400.0) == []
    assert [found.sent_at for found in await overdue(store, add=1400.1)] == [1400.0]
    assert [found.sent_at for found in await overdue(store, sub=9000.0)] == [1400.0]


async def test_a_little_ahead_is_no_clock_that_was_set_back(store: Store, clock: Clock) -> None:
    root, changes = begun()
    await write(store, changes)
    await sent(store, root, at=1050.0)
    await store.transact(lambda tx: tx.record_workers([wire.Worker(worker="w")], 1050.0))
    assert [found.sent_at for found in await overdue(store, add=2000.0)] == [1050.0]
    assert [one.worker for one in await store.transact(lambda tx: tx.heard(985.0))] == ["w"]

"""When time brings something next, as the store tells those who would rather sleep until then."""

from __future__ import annotations

import pytest

from flowkit.coordinator.commit import commit
from flowkit.flow.events import Reported, Started
from flowkit.flow.limits import Limits
from flowkit.store import open_store
from flowkit.wire import messages as wire


@pytest.fixture
async def store():
    store = await open_store("sqlite://", clock=lambda: 1000.0)
    yield store
    await store.close()


async def _start(store, **more):
    start = wire.Start(node="a", run_id="r", **more)
    work = lambda transaction: commit(transaction, [Started("r", start)], secret=b"", limits=Limits())  # noqa: E731
    return await store.transact(work)


async def _due(store):
    return await store.query(lambda queries: queries.next_due())


async def test_nothing_is_due_where_nothing_waits_for_time(store):
    assert await _due(store) is None
    await _start(store)
    assert await _due(store) is None


async def test_a_delay_and_a_deadline(store):
    await _start(store, delay=60, deadline=600)
    assert await _due(store) == 1060


@pytest.mark.parametrize(
    ("item", "due"),
    [
        ({"send": {"node": "b", "delay": 5}}, 1005),
        ({"wait": {"name": "s", "then": "b", "timeout": 7}}, 1007),
        ({"wait": {"name": "s", "then": "b"}}, None),
        ({"gather": {"sends": [{"node": "b"}], "then": "c", "timeout": 9}}, 1009),
    ],
)
async def test_what_a_result_brings(store, item, due):
    (task,) = (await _start(store)).tasks
    result = wire.Result(task_id=task.task_id, run_id="r", nodes=(item,))
    work = lambda transaction: commit(transaction, [Reported(result)], secret=b"", limits=Limits())  # noqa: E731
    await store.transact(work)
    assert await _due(store) == due

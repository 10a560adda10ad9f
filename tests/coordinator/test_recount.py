"""Counters of scopes that are wrong: corrected, and what was not noticed because of them is made up for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkit.flow.changes import MoveScope
from flowkit.flow.state import ScopeStatus
from flowkit.wire import codec
from tests.coordinator.house import FAST, House

SWEEPING = replace(FAST, sweep_every=0.02)


async def count_too_many(house: House, path: str, outstanding: int) -> None:
    """What no code is known to do, and a mistake in one might."""
    change = MoveScope(run_id="r", path=path, outstanding=outstanding, status=ScopeStatus.OPEN)
    await house.store.transact(lambda transaction: transaction.write([change]))


async def all_succeeded(house: House) -> None:
    await house.until(lambda queries: {task.status for task in queries.tasks("r")} == {"succeeded"}, "all has ended")


@pytest.mark.parametrize("recounted", ["before its end", "long ago"])
async def test_a_run_whose_last_task_ended_meanwhile_ends(house, recounted):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await count_too_many(house, "", 2)
        await house.answer(task, outputs={"done": True})
        await all_succeeded(house)
    if recounted == "long ago":  # by a version that corrected counters, and did no more
        assert await house.store.transact(lambda transaction: transaction.recount()) == 1
    async with house.coordinator(pace=SWEEPING):
        run = await house.run_ended("r")
        assert (run.status, codec.loads(run.outputs)) == ("succeeded", {"done": True})


@pytest.mark.parametrize("more", [{}, {"max_concurrency": 1}], ids=["", "max_concurrency"])
async def test_so_does_a_gather(house, more):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"gather": {"sends": ["m"], "then": "sum", **more}}], {"n": 1})
        (branch,) = await house.tasks("m")
        await count_too_many(house, "0.0.0" if more else "0.0", 2)
        await house.answer(branch, outputs={"m": 2})
        await all_succeeded(house)
    async with house.coordinator(pace=SWEEPING):
        (then,) = await house.tasks("sum")
        assert then.inputs == {"n": 1, "results": [{"m": 2}]}
        await house.answer(then)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_what_is_outstanding_again_is_not_ended(house):
    """Between the look at the rows and the commit a run may have been retried."""
    from flowkit.coordinator.commit import commit
    from flowkit.flow.events import Drained
    from flowkit.flow.limits import Limits

    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.store.transact(
            lambda transaction: commit(transaction, [Drained("r", "")], secret=b"s", limits=Limits())
        )
        await house.answer(task, outputs={"done": True})
        run = await house.run_ended("r")
        assert (run.status, codec.loads(run.outputs)) == ("succeeded", {"done": True})

"""A workflow in which tasks of limited nodes are cancelled while they run, in every way in which that can happen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import count
from typing import Any

from flowkit import Gather, Node, Permanent, Send
from flowkit.testing import Faults, Simulation
from flowkit.testing.run import SimulatedRun

spread, part, slow, breaks, joined = (
    Node("spread"), Node("part"), Node("slow", limit=1), Node("breaks"), Node("joined"),
)  # fmt: skip
LOOKS = 60  # half a second each, at most
NODES = (spread, part, slow, breaks, joined)


@spread.main
async def _spread():
    return [Gather([Send("part", {"timeout": timeout}) for timeout in (None, 5, 60)], then="joined",
                   return_exceptions=True)], {}, "spread"  # fmt: skip


@part.main
async def _part():
    timeout = part.get_inputs()["timeout"]
    sends = ["slow", "slow", "breaks"] if timeout is None else ["slow", "slow"]
    return [Gather(sends, then="joined", timeout=timeout)], {}, "part"


@slow.main
async def _slow():
    try:
        await asyncio.sleep(8)
    except asyncio.CancelledError:
        await asyncio.sleep(2)  # it has something to put in order
        raise
    return [], {}, "slow"


@breaks.main
async def _breaks():
    await asyncio.sleep(3)
    raise Permanent("never")


@joined.main
async def _joined():
    return [], {}, "joined"


def contend(seed: int, faults: Faults | None = None, *, runs: int = 3, **more: Any) -> Simulation:
    """Play it while runs are cancelled, paused and resumed; returns what was played."""
    chance = random.Random(f"limits {seed}")
    with Simulation(*NODES, seed=seed, faults=faults, **{"workers": 2, **more}) as sim:
        begun = [sim.start("spread") for _ in range(runs)]
        for _ in range(10):
            run = chance.choice(begun)
            if chance.random() < 0.5:  # while its coordinator may not have noted yet that it was sent
                run = _begins(sim) or run
            else:
                _wait(sim, lambda: False, looks=chance.choice((1, 2, 4, 10, 20)))  # `advance` would come to rest
            what = chance.choice(("cancel", "grace", "pause", "pause", "resume", "resume", "retry"))
            if what == "grace":
                run.cancel(grace=30)
            else:
                getattr(run, what)()
        for run in begun:
            while not _wait(sim, lambda run=run: run.ended):
                run.resume()  # a paused run may have a task that was lost and is sent when it goes on
        sim.audit(accept={"refused"})
    return sim


def _begins(sim: Simulation) -> SimulatedRun | None:
    """The run of the next task of ``slow`` that begins; None when none does for a while, as all may be paused."""
    begun = len(sim.calls("slow"))
    _wait(sim, lambda: len(sim.calls("slow")) > begun)
    calls = sim.calls("slow")[begun:]
    return next(run for run in sim.runs if run.id == calls[-1].run_id) if calls else None


def _wait(sim: Simulation, done: Callable[[], bool], looks: int = LOOKS) -> bool:
    """Wait for something for a while; whether it has come about. The time of day may be set meanwhile."""
    looked = count()
    sim.wait_for(lambda: done() or next(looked) > looks)
    return done()

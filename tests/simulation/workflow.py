"""A workflow in which everything occurs that can go wrong: it is what all simulations of the project play."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from flowkit import Gather, Node, Permanent, Send, Wait
from flowkit.coordinator import Pace
from flowkit.flow.limits import Limits
from flowkit.testing import Faults, Simulation
from flowkit.wire import codec

begin, square, shaky, total = (
    Node("begin"),
    Node("square"),
    Node("shaky", stop=stop_after_attempt(50), wait=wait_fixed(30)),
    Node("total"),
)
broken, mend, inner, approve, late, finish, beside = (
    Node("broken", on_error="mend"), Node("mend"), Node("inner"), Node("approve"), Node("late"), Node("finish"),
    Node("beside", limit=1),
)  # fmt: skip
NODES = (begin, square, shaky, total, broken, mend, inner, approve, late, finish, beside)


@begin.main
async def _begin():
    count = begin.get_inputs()["count"]
    sends = [Send("square", {"n": n}) for n in range(count)]
    sends += [Send("shaky", {"n": count}), Send("broken", {"n": count + 1}), Send("inner", {"n": count + 2})]
    return [Gather(sends, then="total", max_concurrency=4)], {"count": count}, "spread"


@square.main
async def _square():
    return [], {"value": square.get_inputs()["n"] ** 2}, "squared"


@shaky.main
async def _shaky():
    """Fails until its third try, whatever process it runs in: what it was given says nothing, so its id does."""
    tries = shaky_tries()
    if tries < 3:
        raise OSError("not yet")
    return [], {"value": -1}, "steady"


def shaky_tries() -> int:
    from flowkit.worker.current import current

    running = current.get()
    assert running is not None
    return running.task.tries


@broken.main
async def _broken():
    raise Permanent("never")


@mend.main
async def _mend():
    return [], {"value": mend.get_inputs()["inputs"]["n"]}, "mended"


@inner.main
async def _inner():
    n = inner.get_inputs()["n"]
    return [Gather([Send("beside", {"n": n}), Send("beside", {"n": n + 1}, delay=3600)], then="late")], {}, "nested"


@beside.main
async def _beside():
    return [], {"value": beside.get_inputs()["n"]}, "beside"


@late.main
async def _late():
    return [], {"value": [one["value"] for one in late.get_inputs()["results"]]}, "joined"


@total.main
async def _total():
    inputs = total.get_inputs()
    outputs = {"values": [one["value"] for one in inputs["results"]]}
    return [Wait("approval", then="approve", timeout=86_400, on_timeout="late_finish"), "finish"], outputs, "waiting"


@approve.main
async def _approve():
    return ["finish"], {"values": approve.get_inputs()["values"], "approved": True}, "approved"


@finish.main
async def _finish():
    return [], finish.get_inputs(), "finished"


late_finish = Node("late_finish")


@late_finish.main
async def _late_finish():
    return ["finish"], {"values": late_finish.get_inputs()["values"], "approved": False}, "nobody came"


NODES = (*NODES, late_finish)
COUNT = 5
TASKS = 18
VALUES = [0, 1, 4, 9, 16, -1, 6, [7, 8]]
OUTPUTS = {"results": [{"values": VALUES, "approved": False}, {"values": VALUES}]}


COMMANDS = ("signal", "signal", "pause", "resume", "cancel", "retry")


def meddle(seed: int, faults: Faults | None = None, *, runs: int = 3, **more: Any) -> Simulation:
    """Play it while people signal, pause, resume, cancel and retry as chance has it; returns what was played.

    Each run ends in a way that follows from what was asked for, and all else holds as ever.
    """
    chance = random.Random(f"people {seed}")
    with Simulation(*NODES, seed=seed, faults=faults, **{"workers": 2, **more}) as sim:
        begun = [sim.start("begin", {"count": COUNT}) for _ in range(runs)]
        asked: list[tuple[str, str]] = []
        for _ in range(12):
            sim.advance(seconds=chance.choice((0.05, 0.5, 5, 120, 3600)))
            run, command = chance.choice(begun), chance.choice(COMMANDS)
            asked.append((run.id, command))
            if command == "signal":
                run.signal("approval", {"by": "somebody"})
            else:
                getattr(run, command)()
        for run in begun:
            while not sim.wait_for(partial(getattr, run, "ended")):
                run.resume()  # the pauses that were asked for may have overtaken those that were to end them
            row, cancelled = run.end(), (run.id, "cancel") in asked
            assert row.status == "succeeded" or cancelled, (row, asked)
            if row.status == "succeeded":
                approved = codec.loads(row.outputs)["results"][0]["approved"]
                assert approved is False or (run.id, "signal") in asked
        # What makes no sense any more (a signal for a run that has ended) is refused, and kept with the reason.
        sim.audit(accept={"refused"})
    return sim


patient, long = Node("patient", queue_timeout=300, concurrency=1), Node("long")


@patient.main
async def _patient():
    await asyncio.sleep(20)  # the next one waits for it
    return ["long"], {}, "taken"


@long.main
async def _long():
    await asyncio.sleep(40)
    return [], {"done": True}, "done"


LEASING = Pace(
    lease_after=10, lease_silence=18, relay_after=3,
    timers_every=2, schedules_every=20, standing_every=20,  # each look takes real time
)  # fmt: skip
CLOCKS = Faults(clock=0.04, most=40)
NOBODY_DIES = Limits(max_deaths=1)  # a task over which a process seems to have died fails


def play_durations(seed: int, faults: Faults | None = None, *, pace: Pace | None = None, **more: Any) -> Simulation:
    """Play what clocks may end: leases, and tasks that wait to be taken; nobody dies in it, so nothing may fail."""
    given = {"workers": 1, "limits": NOBODY_DIES, "pace": pace or LEASING, **more}
    with Simulation(patient, long, seed=seed, faults=faults, **given) as sim:
        begun = [sim.start("patient") for _ in range(2)]
        for run in begun:
            assert run.outputs() == {"done": True}
        sim.audit()
    return sim


def play(seed: int, faults: Faults | None = None, *, runs: int = 2, **more: Any) -> Simulation:
    """Play it to its end, and see that all came out as it does in good weather; returns what was played."""
    with Simulation(*NODES, seed=seed, faults=faults, **{"workers": 2, **more}) as sim:
        begun = [sim.start("begin", {"count": COUNT}) for _ in range(runs)]
        for run in begun:
            assert run.outputs() == OUTPUTS
        sim.audit()
        paths = {tuple(task.path for task in run.tasks) for run in begun}
        assert len(paths) == 1, paths
        assert len(paths.pop()) == TASKS
    return sim


fan_out, prompt, collected, lasting = (
    Node("fan_out"), Node("prompt", queue_timeout=1), Node("collected"), Node("lasting"),
)  # fmt: skip


@fan_out.main
async def _fan_out():
    return [Gather([Send("prompt", {"n": n}) for n in range(COUNT)], then="collected")], {}, "spread"


@prompt.main
async def _prompt():
    return [], {"value": prompt.get_inputs()["n"]}, "done"


@collected.main
async def _collected():
    return [], {"values": [one["value"] for one in collected.get_inputs()["results"]]}, "collected"


@lasting.main
async def _lasting():
    """While it runs time is lived through: a clock that leaps over it is a step, after which nothing is concluded."""
    await asyncio.sleep(lasting.get_inputs()["seconds"])
    return [], {}, "at last"


def play_prompt(seed: int, faults: Faults | None = None, *, runs: int = 10, **more: Any) -> Simulation:
    """Play tasks that fail when no worker takes them within a second, which the worker of this play always does.

    There is one, so that no coordinator reads all announcements of a worker and the other one none.
    """
    nodes = (fan_out, prompt, collected, lasting)
    with Simulation(*nodes, seed=seed, faults=faults, **{"workers": 1, "coordinators": 2, **more}) as sim:
        sim.start("lasting", {"seconds": 20 * runs})
        begun = []
        for _ in range(runs):
            begun.append(sim.start("fan_out"))
            sim.advance(seconds=20)
        for run in begun:
            assert run.outputs() == {"values": list(range(COUNT))}
        sim.audit()
    return sim

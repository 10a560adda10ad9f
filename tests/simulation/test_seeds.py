"""The whole of FlowKit under faults: the same workflow as in good weather, whatever dies, vanishes or comes twice.

A seed that fails is named in the failure, and plays the same again: ``play(seed, faults)``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.coordinator import Pace
from flowkit.flow.limits import Limits
from flowkit.testing import ROUGH, Faults
from tests.simulation.workflow import play

ROOT = Path(__file__).parents[2]
NO_SWEEPER = Pace(sweep_every=1e9)  # it hides what others forget
DEATHS = Limits(max_deaths=1_000)
WEATHERS = {
    "rough": (ROUGH, {}),
    "rough, without a sweeper": (ROUGH, {"pace": NO_SWEEPER}),
    "rough, two coordinators": (ROUGH, {"coordinators": 2}),
    "everybody dies": (Faults(crash=0.05, most=150), {"limits": DEATHS}),
    "coordinators die": (Faults(crash_coordinator=0.1), {"pace": NO_SWEEPER}),
    "workers die": (Faults(crash_worker=0.1), {"limits": DEATHS, "pace": NO_SWEEPER}),
    "the broker is wiped": (Faults(wipe=0.03, crash=0.01), {"pace": NO_SWEEPER}),
    "the network is bad": (Faults(disconnect=0.1, lose_confirm=0.1, duplicate=0.2, reorder=0.5, most=300), {}),
}
SEEDS = 25  # each; 10 to 15 s in all


@pytest.mark.parametrize("weather", WEATHERS)
def test_all_runs_end_as_in_good_weather(weather):
    faults, more = WEATHERS[weather]
    happened = 0
    for seed in range(SEEDS):
        happened += play(seed, faults, **more).happened
    assert happened > 10 * SEEDS


def test_in_good_weather_each_task_runs_once():
    sim = play(0, runs=1)
    assert sim.happened == 0
    # Three tries of one node, and a Gather that nobody had to run.
    assert len(sim.calls()) == sum(sim.ran(node) for node in {call.node for call in sim.calls()}) + 2


@pytest.mark.parametrize("part", range(4))
def test_each_step_is_survived_by_whoever_takes_it(part):
    steps = len(play(0, runs=1, workers=1).trace)
    assert steps > 250
    for step in range(part + 1, steps, 4):
        play(0, Faults(crash_at=step), runs=1, workers=1, pace=NO_SWEEPER)


def test_the_same_seed_plays_the_same_again():
    first, again = play(7, ROUGH), play(7, ROUGH)
    assert first.happened > 10
    assert first.trace == again.trace
    assert first.trace != play(8, ROUGH).trace


def test_and_in_another_process_too():
    """Where the order of sets of text is another one."""
    script = """
from flowkit.testing import ROUGH
from tests.simulation.workflow import play

print(*play(7, ROUGH).trace, sep="\\n")
"""
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=50, check=True
    )
    assert said.stdout.splitlines() == play(7, ROUGH).trace

"""The whole of FlowKit under faults: the same workflow as in good weather, whatever dies, vanishes or comes twice.

A seed that fails is named in the failure, and plays the same again: ``play(seed, faults)``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from flowkit.testing import ROUGH, Faults
from tests.simulation.weather import NO_SWEEPER, WEATHERS, Played, play_some
from tests.simulation.workflow import play, play_durations

ROOT = Path(__file__).parents[2]
PARTS, SEEDS = 5, 14  # of each weather: a thousand in all


@pytest.fixture(scope="module")
def played() -> Iterator[dict[tuple[str, int], Future[Played]]]:
    """All of them, being played in two processes."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield {
            (weather, part): pool.submit(play_some, weather, part * SEEDS, (part + 1) * SEEDS)
            for weather in WEATHERS
            for part in range(PARTS)
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("weather", WEATHERS)
def test_all_runs_end_as_in_good_weather(played, weather, part):
    found = played[weather, part].result()
    assert found.failed == [], "to play one again: WEATHERS[weather](seed) of tests.simulation.weather"
    assert found.faults > 10 * SEEDS


def test_in_good_weather_each_task_runs_once():
    sim = play(0, runs=1)
    assert sim.happened == 0
    # Three tries of one node, and a Gather that nobody had to run.
    assert len(sim.calls()) == sum(sim.ran(node) for node in {call.node for call in sim.calls()}) + 2


def test_in_good_weather_a_worker_of_one_slot_takes_the_next_task_after_a_leased_one():
    sim = play_durations(0)
    assert len(sim.calls()) == 4


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

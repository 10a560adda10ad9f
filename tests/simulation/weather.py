"""What goes wrong in the simulations of the project: a thousand seeds in ``make test``, more in ``make chaos``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flowkit.coordinator import Pace
from flowkit.flow.limits import Limits
from flowkit.testing import ROUGH, Faults, Simulation
from tests.simulation.limited import contend
from tests.simulation.workflow import CLOCKS, meddle, play, play_durations, play_prompt
from tests.store import kept

NO_SWEEPER = Pace(sweep_every=None)  # it hides what others forget
DEATHS = Limits(max_deaths=1_000)
WEATHERS: dict[str, Callable[[int], Simulation]] = {
    "rough": partial(play, faults=ROUGH),
    "rough, without a sweeper": partial(play, faults=ROUGH, pace=NO_SWEEPER),
    "rough, two coordinators": partial(play, faults=ROUGH, coordinators=2),
    "rough, and people meddle": partial(meddle, faults=ROUGH, limits=DEATHS),
    "everybody dies": partial(play, faults=Faults(crash=0.05, most=150), limits=DEATHS),
    "coordinators die": partial(play, faults=Faults(crash_coordinator=0.1), pace=NO_SWEEPER),
    "workers die": partial(play, faults=Faults(crash_worker=0.1), limits=DEATHS, pace=NO_SWEEPER),
    "the broker is wiped": partial(play, faults=Faults(wipe=0.03, crash=0.01), pace=NO_SWEEPER),
    "answers to commits are lost": partial(
        play, faults=Faults(lose_commit=0.1, crash_coordinator=0.02), pace=NO_SWEEPER
    ),
    "answers to commits are lost, and people meddle": partial(
        meddle, faults=Faults(lose_commit=0.1, crash_coordinator=0.05), limits=DEATHS
    ),
    "the store is away from one of two coordinators": partial(
        play, faults=Faults(store_away=0.02, crash_coordinator=0.02, duplicate=0.05), coordinators=2
    ),
    "clocks are set": partial(play_durations, faults=CLOCKS),
    "the store is slow for one of two coordinators": partial(
        play_prompt, faults=Faults(store_slow=0.004, crash_coordinator=0.004, duplicate=0.1, reorder=0.1), runs=2
    ),
    "tasks of limited nodes are cancelled": partial(
        contend, faults=ROUGH, runs=2, limits=DEATHS, coordinators=2, pace=NO_SWEEPER
    ),
    "the network is bad": partial(
        play, faults=Faults(disconnect=0.1, lose_confirm=0.1, duplicate=0.2, reorder=0.5, most=300)
    ),
}


@dataclass(frozen=True)
class Played:
    """What came of some seeds of one weather."""

    weather: str
    seeds: int
    faults: int
    failed: list[str]  # which, and how


def play_some(weather: str, begin: int, end: int) -> Played:
    """Play the seeds from ``begin`` to before ``end``, whichever of them fail."""
    kept.check_always()
    faults, failed = 0, []
    for seed in range(begin, end):
        try:
            faults += WEATHERS[weather](seed).happened
        except Exception as error:
            failed.append(f"{weather!r}, seed {seed}: {type(error).__name__}: {str(error)[:500]}")
    return Played(weather, end - begin, faults, failed)

"""Run a workflow of real nodes in a test: in one process, on a clock that leaps, with faults that follow from a seed.

    def test_nobody_approves():
        with Simulation("workers") as sim:
            run = sim.start("expense", {"who": "ann", "amount": 480})
            sim.advance(days=3)
            assert sim.ran("escalate") == 1
            assert run.outputs()["paid"] == 0

Inside: ``clock`` is the event loop, ``faults`` decides what goes wrong, ``life`` is a process until it is killed,
``process`` begins the next one, ``nodes`` finds what is to run and records it, ``rest`` knows whether anything is going
on, ``house`` holds all that, ``audit`` knows what must be true whatever happened; ``simulation`` and ``run`` are what a
test has in its hands.
"""

from __future__ import annotations

from flowkit.testing.faults import ROUGH, Faults
from flowkit.testing.nodes import Call
from flowkit.testing.run import SimulatedRun
from flowkit.testing.simulation import Simulation

__all__ = ["ROUGH", "Call", "Faults", "SimulatedRun", "Simulation"]

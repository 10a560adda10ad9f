"""A full queue that is emptied: chains that were all started before, or single tasks."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.scenarios.at_site import AtSite
from benchmarks.scenarios.case import Figures


@dataclass
class Drain(AtSite):
    """From the first executed task to the last one."""

    def begin(self) -> None:
        """Send all the work; nobody is there to do it."""
        self.set_up().send(self.work)

    def execute(self) -> Figures:
        """Start whoever does it: what that takes is over when the first task runs."""
        self.site.start()
        self.site.wait(1)
        before = self.site.cpu()
        self.site.wait(self.work.executions)
        cpu = self.site.cpu() - before
        memory = self.site.memory()
        found = self.executed()
        seconds = found[-1].at - found[0].at
        return {
            "per_second": (len(found) - 1) / seconds,
            "cpu_us": 1e6 * cpu / len(found),
            "seconds": seconds,
            "repeated": len(found) - self.work.executions,
            **{f"{name}_mb": held for name, held in memory.items()},
        }

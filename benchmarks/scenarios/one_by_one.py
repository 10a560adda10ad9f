"""An idle system: chains or fan-outs of which the next is sent when the one before has ended."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, replace

from benchmarks import record
from benchmarks.record import SENT
from benchmarks.scenarios.at_site import WARM, AtSite
from benchmarks.scenarios.case import Figures


@dataclass
class OneByOne(AtSite):
    """Chains: from just before sending to the last step. Fan-outs: from the task that fans out to the join."""

    def begin(self) -> None:
        """Start everything, and do a little of the same: imports and connections are no latency."""
        site = self.set_up()
        site.start()
        site.send(replace(self.work, count=3, first=WARM, width=min(self.work.width, 3)))

    def execute(self) -> Figures:
        """One after the other."""
        before = self.site.cpu()
        self.site.send(self.work)
        cpu = self.site.cpu() - before
        self.executed()
        times: dict[int, list[float]] = defaultdict(list)
        for entry in record.entries(self.site.record):
            if entry.number < WARM and not (self.work.kind == "wide" and entry.step == SENT):
                times[entry.number].append(entry.at)
        took = sorted(max(one) - min(one) for one in times.values())
        return {
            "p50_ms": 1000 * statistics.median(took),
            "p90_ms": 1000 * took[len(took) * 9 // 10],
            "cpu_us": 1e6 * cpu / self.work.executions,
        }

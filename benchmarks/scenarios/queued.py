"""What a step of FlowKit costs while many tasks are queued: the same long chains, few or many of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from benchmarks import record
from benchmarks.scenarios.at_site import AtSite
from benchmarks.scenarios.case import Figures
from benchmarks.site import LOOK, PATIENCE
from flowkit.broker import open_broker
from flowkit.wire.topology import Topology


@dataclass
class Queued(AtSite):
    """The worker is stopped after a window; the time runs until the successor of every executed step is in the store.

    A worker runs ahead of its coordinator where many tasks are queued: what it has executed counts when it is applied.

    Args:
        window: steps after which the worker is stopped; of few chains only a part of each.
    """

    window: int = 1

    def begin(self) -> None:
        """Let the coordinator queue the first task of every chain."""
        site = self.set_up()
        site.start("coordinator")
        site.send(self.work)
        asyncio.run(self._all_queued())

    def execute(self) -> Figures:
        """Start the worker."""
        first = self._rows()
        self.site.start("worker")
        self.site.wait(1)
        worker, coordinator = self.site.programs["worker"], self.site.programs["coordinator"]
        began, cpu = time.monotonic(), -self.site.cpu()
        self.site.wait(self.window)
        worker.ask_to_end()
        applied, last, used = 0, began, 0.0
        most = self.work.count * (self.work.steps - 1)  # the last step of a chain has no successor
        while not worker.ended or applied < min(record.lines(self.site.record), most):
            used = max(used, worker.cpu())  # nobody knows it of a process that has ended
            rows = self._rows() - first
            if rows > applied:
                applied, last = rows, time.monotonic()
            if time.monotonic() > began + PATIENCE:
                raise RuntimeError(f"{self.key}: {applied} of {record.lines(self.site.record)} steps were applied")
            time.sleep(LOOK)
        cpu += used + coordinator.cpu()
        return {"step_us": 1e6 * (last - began) / applied, "cpu_us": 1e6 * cpu / applied, "steps": applied}

    def _rows(self) -> int:
        """Rows of tasks that were ever added; none is ever deleted here, and the last row is found at once."""
        with closing(sqlite3.connect(f"file:{self.site.folder}/flowkit.db?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT max(rowid) FROM tasks").fetchone()[0])

    async def _all_queued(self) -> None:
        broker = open_broker(self.ground.broker)
        await broker.connect(10)
        queue = Topology(self.site.name).tasks("step").name
        try:
            async with asyncio.timeout(PATIENCE):
                while (state := await broker.inspect(queue)) is None or state.ready < self.work.count:
                    self.site.check()
                    await asyncio.sleep(0.05)
        finally:
            await broker.close()

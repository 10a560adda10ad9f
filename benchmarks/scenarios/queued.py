"""What a step of FlowKit costs while many tasks are queued: the same long chains, few or many of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from benchmarks.scenarios.at_site import AtSite
from benchmarks.scenarios.case import Figures
from benchmarks.site import LOOK, PATIENCE
from flowkit.broker import open_broker
from flowkit.wire.topology import Topology


@dataclass
class Queued(AtSite):
    """A step is counted when its successor is in the store, for a worker may run ahead of its coordinator.

    Args:
        window: steps that are measured; of few chains only a part of each.
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
        began, before = time.monotonic(), self.site.cpu()
        while self._rows() < first + self.window:
            if time.monotonic() > began + PATIENCE:
                raise RuntimeError(f"{self.key}: {self._rows() - first} of {self.window} steps in {PATIENCE:.0f} s")
            time.sleep(LOOK)
        seconds, cpu = time.monotonic() - began, self.site.cpu() - before
        return {"per_second": self.window / seconds, "step_us": 1e6 * seconds / self.window,
                "cpu_us": 1e6 * cpu / self.window}  # fmt: skip

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

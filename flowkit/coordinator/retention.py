"""Forgets what is old: runs that ended long ago, log lines of no run, workers that are gone.

In small steps with pauses, so that nobody notices. Dead letters stay until somebody discards them: each is something
that went wrong and that nobody may have looked at.
"""

from __future__ import annotations

import asyncio
import logging

from flowkit.coordinator.ledger import Ledger
from flowkit.store.protocol import OldLine, Pruned, Transaction

logger = logging.getLogger(__name__)
ROWS = 500  # in a transaction: 10 to 20 ms
PAUSE = 0.1  # seconds between two of them, for everybody else


class Retention:
    """Looks every ``every`` seconds for what is older than ``keep`` seconds."""

    def __init__(self, ledger: Ledger, *, keep: float, every: float) -> None:
        self._ledger, self._keep, self._every = ledger, keep, every

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._every)

    async def sweep(self) -> None:
        """Remove all that is old now."""
        runs = await self._runs()
        lines = await self._lines()
        workers = await self._workers()
        if runs or lines or workers:
            logger.info("forgot %d runs, %d log lines of no run and %d workers, older than %g days",
                        runs, lines, workers, self._keep / 86_400,
                        extra={"action": "pruned", "runs": runs, "lines": lines, "workers": workers})  # fmt: skip

    async def _runs(self) -> int:
        def step(transaction: Transaction) -> Pruned:
            return transaction.prune(transaction.now() - self._keep, ROWS)

        runs = 0
        while removed := await self._ledger.transact(step):
            runs += removed.runs
            await asyncio.sleep(PAUSE)
        return runs

    async def _lines(self) -> int:
        lines, behind = 0, None

        def step(transaction: Transaction) -> tuple[int, OldLine | None]:
            return transaction.prune_lines(transaction.now() - self._keep, ROWS, behind=behind)

        while True:
            removed, behind = await self._ledger.transact(step)
            lines += removed
            if behind is None:
                return lines
            await asyncio.sleep(PAUSE)

    async def _workers(self) -> int:
        def step(transaction: Transaction) -> int:
            return transaction.prune_workers(transaction.now() - self._keep, ROWS)

        workers = 0
        while removed := await self._ledger.transact(step):
            workers += removed
            await asyncio.sleep(PAUSE)
        return workers

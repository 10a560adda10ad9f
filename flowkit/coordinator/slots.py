"""Lets held tasks of limited nodes out where no transaction of the commit protocol did.

Most go out in the transaction that ended another task of their slot. Here is the rest: room that came in sets (a run
was cancelled), a limit that was raised, more tasks than one transaction should release.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.relay import send
from flowkit.store.protocol import Sendable, Transaction

LIMIT = 200  # slots a page


class Slots:
    """Looks at all slots that hold tasks, when it is told to and every ``every`` seconds."""

    def __init__(self, ledger: Ledger, outbox: Outbox, *, every: float) -> None:
        self._ledger, self._outbox, self._every = ledger, outbox, every

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):  # wait_for may lose a cancellation
                    await self._ledger.freed.wait()
            self._ledger.freed.clear()
            await self.look()

    async def look(self) -> int:
        """Let out what there is room for.

        Returns:
            how many tasks.
        """
        count, behind = 0, None
        while True:
            tasks, last, more = await self._ledger.transact(partial(_admit, behind))
            await send(self._ledger, self._outbox, tasks)
            count += len(tasks)
            if last is None:
                return count
            behind = behind if more else last


def _admit(behind: str | None, transaction: Transaction) -> tuple[list[Sendable], str | None, bool]:
    names = transaction.slots_held(LIMIT, after=behind)
    admitted = transaction.admit(names, transaction.node_limits())
    return transaction.sendables(admitted.tasks), names[-1] if names else None, admitted.more

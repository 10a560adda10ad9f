"""Notice author code that blocks the event loop, and say which nodes were running."""

from __future__ import annotations

import asyncio
import logging

from flowkit.worker.execution import Taken

_log = logging.getLogger(__name__)


async def watch_lag(taken: Taken, *, every: float = 1, limit: float = 1) -> None:
    """Warn whenever the loop was blocked, until cancelled.

    Args:
        taken: the executions, for the names of their nodes.
        every: seconds between two looks.
        limit: seconds of delay that are worth a warning.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every
        await asyncio.sleep(every)
        late = loop.time() - due
        if late > limit:
            nodes = ", ".join(sorted({one.task.node for one in taken if one.since is not None})) or "none"
            _log.warning(
                "the event loop was blocked for %.1f s while running: %s. "
                "Move blocking calls into 'await asyncio.to_thread(…)'",
                late,
                nodes,
                extra={"action": "loop_blocked", "seconds": late, "nodes": nodes},
            )

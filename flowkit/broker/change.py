"""Waiting until something is otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Change:
    """Wakes all who wait, so that they look again; unlike an event it need not be cleared."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Something changed."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self) -> None:
        """Wait for the next change."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at again after every change."""
        while not condition():
            await self.wait()

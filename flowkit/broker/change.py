"""Waiting until something is otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Change:
    """Wakes all who wait, so that they look again; unlike an event it need not be cleared."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}  # a dict: they wake in the order in which they came

    def notify(self) -> None:
        """Something changed."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self) -> None:
        """Wait for the next change."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            await waiting
        finally:
            self._waiting.pop(waiting, None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at again after every change."""
        while not condition():
            await self.wait()

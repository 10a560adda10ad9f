"""Whose turn it is: so many tasks of each node side by side, and one that may kill its process alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from flowkit.worker.execution import Execution


class Turns:
    """Says when an execution begins: first a slot of its node, then the door.

    The door lets in one after the other, in the order in which they got their slots. Who has to be alone stands in it
    until everybody else has left, and again until he has left himself; so he comes before those who come later.

    Args:
        slots: how many of each node are inside at a time.
        begin: called when it is an execution's turn, perhaps from within ``ask`` or ``leave``.
    """

    def __init__(self, slots: Mapping[str, int], begin: Callable[[Execution], None]) -> None:
        self._begin, self._free = begin, dict(slots)
        self._waiting: dict[str, deque[Execution]] = {node: deque() for node in slots}  # for a slot
        self._door: deque[Execution] = deque()  # with a slot
        self._inside: set[Execution] = set()
        self._alone = self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def inside(self) -> list[Execution]:
        """Those that have begun and not left."""
        return list(self._inside)

    def ask(self, execution: Execution) -> None:
        """It begins as soon as it may."""
        node = execution.task.node
        self._waiting[node].append(execution)
        self._admit(node)

    def leave(self, execution: Execution) -> None:
        """It has ended, or will not begin any more."""
        node = execution.task.node
        if execution in self._inside:
            self._inside.remove(execution)
            self._alone = False
            self._free[node] += 1
        elif execution in self._door:
            self._door.remove(execution)
            self._free[node] += 1
        else:
            self._waiting[node].remove(execution)
        self._admit(node)
        if not self._inside:
            self._empty.set()

    def close(self) -> None:
        """Nothing begins any more."""
        self._closed = True

    async def all_left(self, timeout: float) -> bool:
        """Whether nobody is inside any more; waits up to ``timeout`` seconds for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        return not self._inside

    def _admit(self, node: str) -> None:
        if self._closed:
            return
        waiting = self._waiting[node]
        while waiting and self._free[node]:
            self._free[node] -= 1
            self._door.append(waiting.popleft())
        while self._door and not self._alone and not (self._door[0].suspect and self._inside):
            execution = self._door.popleft()
            self._alone = execution.suspect
            self._inside.add(execution)
            self._empty.clear()
            self._begin(execution)

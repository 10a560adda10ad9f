"""A process that begins again whenever it was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from flowkit.testing.life import Life

PAUSE = 1.0  # seconds, on the average, until somebody has started it again


class Body(NamedTuple):
    """What runs in one life of a process."""

    run: Coroutine[Any, Any, object]
    ready: Callable[[], bool]  # it takes what comes
    busy: Callable[[], bool]  # it does something that no message stands for


class Process:
    """Lives one life after the other.

    Args:
        name: what its lives are called, with their number.
        born: begins a life; given its name.
        body: what runs in it.
    """

    def __init__(self, name: str, born: Callable[[str], Life], body: Callable[[Life], Body]) -> None:
        self.name = name
        self._born, self._make = born, body
        self._life: Life | None = None
        self._body: Body | None = None
        self.failure: BaseException | None = None  # what its code raised: nobody killed it

    @property
    def ready(self) -> bool:
        """Whether it lives and takes what comes."""
        return self._life is not None and not self._life.dead and self._body is not None and self._body.ready()

    @property
    def busy(self) -> bool:
        """Whether it does something that no message stands for."""
        return self._body is not None and self._body.busy()

    async def run(self) -> None:
        """Until it is cancelled, or its code raises."""
        number = 0
        while True:
            number += 1
            self._life = life = self._born(f"{self.name}.{number}")
            self._body = self._make(life)
            life.task = asyncio.create_task(_to_the_end(self._body.run), name=life.name)
            life.task.add_done_callback(life.ended)
            try:
                # Not the task itself: code that clings to life must not keep the next one from beginning.
                await life.over.wait()
            finally:
                await life.die()
            if life.failure is not None:
                self.failure = life.failure
                return
            await asyncio.sleep(life.fates.chance.uniform(0, 2 * PAUSE))


async def _to_the_end(run: Coroutine[Any, Any, object]) -> None:
    await run

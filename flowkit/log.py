"""``Logger``, and a ``logging.Handler`` for stdlib logging inside nodes. Both write where the running task says."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from flowkit.node import Node
from flowkit.worker.current import current
from flowkit.worker.logs import text_of
from flowkit.worker.records import TaskHandler, capture

__all__ = ["Logger", "TaskHandler", "capture"]


class Logger:
    """Logs lines of a node's running task. All methods are awaitable and none waits for the network but ``flush``.

    Args:
        node: whose lines these are.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def debug(self, message: str) -> None:
        """Log a detail."""
        await self._write("DEBUG", message)

    async def info(self, message: str) -> None:
        """Log what happens."""
        await self._write("INFO", message)

    async def warning(self, message: str) -> None:
        """Log what should not be so, but is no failure."""
        await self._write("WARNING", message)

    async def error(self, message: str, include_traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - the original API
        """Log a failure.

        Args:
            message: what failed.
            include_traceback: also the traceback of the exception that is being handled.
        """
        raised = include_traceback and sys.exc_info()[0] is not None
        await self._write("ERROR", message, exception=traceback.format_exc().rstrip() if raised else None)

    async def log_with_context(self, level: str | int, message: str, context: Mapping[str, Any] | None = None) -> None:
        """Log with values beside the text.

        Args:
            level: ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR`` or ``CRITICAL`` in any case, or a number of ``logging``.
            message: what happens.
            context: JSON values by name; what is no JSON becomes text.
        """
        name = logging.getLevelName(level) if isinstance(level, int) else str(level)
        await self._write(name.upper(), message, None if context is None else dict(context))

    async def flush(self, timeout: float = 5) -> None:
        """Wait until the lines have left this process, for ``timeout`` seconds at most."""
        running = current.get()
        if running is not None:
            await running.sink.flush(timeout)

    async def _write(
        self, level: str, message: str, context: dict[str, Any] | None = None, exception: str | None = None
    ) -> None:
        running = current.get()
        if running is None:  # no task, so no run to tell of it
            said = message if context is None else f"{message} {context}"
            logging.getLogger(f"nodes.{self._node.name}").log(_number(level), "%s", said)
            return
        running.sink.write(running.task, level, text_of(message), context, exception)
        if running.sink.crowded:
            await asyncio.sleep(0)  # a flood of lines lets those run that send them


def _number(level: str) -> int:
    return logging.getLevelNamesMapping().get(level, logging.INFO)

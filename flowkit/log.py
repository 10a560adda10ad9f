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

_UNHEARD = ("aio_pika", "aiormq", "pamqp", "flowkit")  # they log about the very way that lines take


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
        running.sink.write(running.task, level, str(message), context, exception)
        if running.sink.crowded:
            await asyncio.sleep(0)  # a flood of lines lets those run that send them


class TaskHandler(logging.Handler):
    """Sends records that a running task logs with stdlib ``logging`` the way of its ``Logger``.

    Records from elsewhere are not its business; they go to the operator's handlers.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record, from any thread."""
        running = current.get()
        if running is None or record.name.partition(".")[0] in _UNHEARD:
            _last_resort(record)
            return
        try:
            message = record.getMessage()
            exception = None
            if record.exc_info and record.exc_info[0] is not None:
                exception = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        except Exception:  # noqa: BLE001 - the author's format and arguments, as in every handler
            self.handleError(record)
            return
        running.sink.write(running.task, record.levelname, message, {"logger": record.name}, exception)


def capture() -> None:
    """Send what tasks log with stdlib ``logging`` to their runs, in this process from now on."""
    root = logging.getLogger()
    if any(isinstance(handler, TaskHandler) for handler in root.handlers):
        return
    if not root.handlers and root.level == logging.WARNING:
        root.setLevel(logging.INFO)  # nobody has configured logging: INFO is what an author expects to see
    root.addHandler(TaskHandler())


def _last_resort(record: logging.LogRecord) -> None:
    """What Python does with a record for which there is no handler: without us there might be none."""
    alone = all(isinstance(handler, TaskHandler) for handler in logging.getLogger().handlers)
    resort = logging.lastResort
    if alone and resort is not None and record.levelno >= resort.level:
        resort.handle(record)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping().get(level, logging.INFO)

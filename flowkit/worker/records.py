"""stdlib ``logging`` inside nodes: each record that a running task logs also goes to the task's run.

``capture`` replaces two methods of ``logging.Logger``, as tracing libraries do, and ``logging.basicConfig``. A handler
on the root logger would not do: ``basicConfig(force=True)``, ``dictConfig`` and ``handlers.clear()`` remove it, a level
of the root logger starves it, ``disable_existing_loggers`` and ``propagate=False`` go around it. All of these are
settings of one node file, and the process is shared by all nodes that run in it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

from flowkit.worker.current import Current, current
from flowkit.worker.failure import message_of, type_of
from flowkit.worker.logs import text_of
from flowkit.worker.terminal import Terminal

_LEVEL = logging.INFO  # from which level on a run gets the records of loggers without a level of their own
_OWN = "flowkit"
_EXCLUDED = (_OWN, "aio_pika", "aiormq", "pamqp")  # they log about the very way that lines take

_is_enabled_for = logging.Logger.isEnabledFor
_handle = logging.Logger.handle
_basic_config = logging.basicConfig
_protected = False


class TaskHandler(logging.Handler):
    """Sends records that a running task logs to the task's run, where ``capture`` has not been called.

    Records from elsewhere, and those of FlowKit and its client libraries, are left to other handlers.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, from any thread."""
        running = current.get()
        if running is not None and not _is_excluded(record.name) and not _is_captured():
            _send(running, record)


def capture() -> None:
    """Send what tasks log with stdlib ``logging`` to their runs, in this process from now on.

    The run gets records from INFO on, and below where the logger's effective level says so. The root logger's level,
    handlers and ``disable_existing_loggers`` concern the node's own handlers alone. A level of a named logger and
    ``logging.disable()`` hold for the run as well.
    """
    # Without any handler logging prints records on stderr as a last resort; those of tasks reach the run already.
    resort = logging.lastResort
    if resort is not None and _is_of_no_task not in resort.filters:
        resort.addFilter(_is_of_no_task)
    if not _is_captured():
        logging.Logger.isEnabledFor = _is_enabled_for_task  # type: ignore[method-assign]
        logging.Logger.handle = _handle_for_task  # type: ignore[method-assign]
        logging.basicConfig = _basic_config_if_asked


def protect_own_log() -> None:
    """Keep FlowKit's own loggers enabled, whatever ``dictConfig`` or ``logging.disable`` in a node file says."""
    global _protected  # noqa: PLW0603 - as logging itself, a state of the process
    _protected = True
    capture()


def _is_captured() -> bool:
    return logging.Logger.handle is _handle_for_task


def _is_of_no_task(record: logging.LogRecord) -> bool:
    return current.get() is None or _is_excluded(record.name)


def _is_excluded(name: str) -> bool:
    return name.partition(".")[0] in _EXCLUDED


def _is_enabled_for_task(self: logging.Logger, level: int) -> bool:
    if _protected and self.name.partition(".")[0] == _OWN:
        self.disabled = False  # dictConfig disables each logger that it does not name
        return _is_enabled_for(self, level) or self.manager.disable >= level >= self.getEffectiveLevel()
    if _is_enabled_for(self, level):
        return True
    return (
        level >= _LEVEL
        and current.get() is not None
        and self.manager.disable < level
        and not _is_excluded(self.name)
        and level >= _level_below_root(self)
    )


def _level_below_root(logger: logging.Logger) -> int:
    above: logging.Logger | None = logger
    while above is not None and above is not logging.root:
        if above.level:
            return above.level
        above = above.parent
    return _LEVEL


def _handle_for_task(self: logging.Logger, record: logging.LogRecord) -> None:
    running = current.get()
    if running is None or _is_excluded(record.name):
        _handle(self, record)
        return
    kept: bool | logging.LogRecord = self.filter(record)  # a record from Python 3.12 on
    if not kept:
        return
    if isinstance(kept, logging.LogRecord):
        record = kept
    _send(running, record)
    if _is_enabled_for(self, record.levelno):
        self.callHandlers(record)


def _send(running: Current, record: logging.LogRecord) -> None:
    exception = None
    try:
        message = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            exception = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    except Exception as error:  # noqa: BLE001 - the author's format and arguments
        message = f"{text_of(record.msg)} (its arguments cannot be formatted: {type_of(error)}: {message_of(error)})"
    running.sink.write(running.task, record.levelname, message, {"logger": record.name}, exception)


def _basic_config_if_asked(**options: Any) -> None:
    # logging.info() and its like call it where the root logger has no handler: each line would be on stderr as well.
    if sys._getframe(1).f_globals.get("__name__") != logging.__name__:  # noqa: SLF001 - who calls
        _basic_config(**options)


def _write_to_terminal() -> None:
    """In a forked child, show lines on stderr: the thread that would publish them exists in the parent alone."""
    running = current.get()
    if running is not None:
        current.set(Current(running.task, Terminal()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_write_to_terminal)

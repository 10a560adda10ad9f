"""stdlib ``logging`` inside nodes."""

from __future__ import annotations

import logging
import traceback

from flowkit.worker.current import current

_UNHEARD = ("aio_pika", "aiormq", "pamqp", "flowkit")  # they log about the very way that lines take


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

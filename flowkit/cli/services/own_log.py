"""FlowKit's own log: stdlib logging on stderr, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys

from flowkit.cli.render.output import moment

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, and the fields given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        words = {
            "ts": moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            words["exception"] = self.formatException(record.exc_info)
        return json.dumps(words, ensure_ascii=False, default=str)


def configure(level: str, style: str, worker: str | None = None) -> None:
    """Send FlowKit's own log to stderr.

    Args:
        level: from which level on.
        style: ``text`` or ``json``.
        worker: name that stands in each line, where several processes write to one stderr.
    """
    text = logging.Formatter(
        "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
        if worker is None
        else "%(asctime)s %(levelname)-7s [%(worker)s] %(name)s: %(message)s"
    )

    def named(record: logging.LogRecord) -> bool:
        record.worker = worker
        return True

    def handler() -> logging.Handler:
        made = logging.StreamHandler(sys.stderr)
        made.setFormatter(JsonLines() if style == "json" else text)
        if worker is not None:
            made.addFilter(named)
        return made

    # The root logger is left to node files, which may configure it in any way.
    own = logging.getLogger("flowkit")
    own.handlers[:] = [handler()]
    own.propagate = False  # or a handler of a node file would print each line a second time
    own.setLevel(level)
    others = handler()
    others.setLevel(logging.WARNING)
    logging.lastResort = others  # other libraries, where no node file configures logging
    for loud in ("aio_pika", "aiormq"):  # every reconnect with a traceback: FlowKit says it in one line
        logging.getLogger(loud).setLevel("CRITICAL")

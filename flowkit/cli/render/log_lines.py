"""Log lines of nodes, as people read them in a terminal."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from flowkit.cli.render.output import clean, paint

if TYPE_CHECKING:
    from flowkit.wire.messages import Log

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_COLOURS = {"DEBUG": "grey", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


def rank(level: str) -> int:
    """How grave a level is; an unknown one counts as INFO."""
    return LEVELS.index(level.upper()) if level.upper() in LEVELS else 1


def show(log: Log, stream: TextIO | None = None, *, run: bool = False) -> str:
    """One line, and its traceback below it.

    Args:
        log: the message.
        stream: where it will be printed: decides about colour and control characters; stderr when left out.
        run: with the run's id, where lines of several runs stand together.
    """
    stream = stream or sys.stderr
    level = clean(log.level.upper(), stream)
    words = [
        paint(datetime.fromtimestamp(log.ts).strftime("%H:%M:%S.%f")[:-3], "grey", stream),  # noqa: DTZ006 - local time
        paint(level.ljust(7), _COLOURS[level], stream) if level in _COLOURS else level.ljust(7),
        clean(log.node or "-", stream),
        *([paint(clean(log.run_id, stream), "grey", stream)] if run and log.run_id else []),
        clean(log.message, stream),
        *([paint(clean(json.dumps(log.context, ensure_ascii=False), stream), "grey", stream)] if log.context else []),
    ]
    below = (
        "\n" + "\n".join("    " + line for line in clean(log.exception, stream).splitlines()) if log.exception else ""
    )
    return "  ".join(words) + below

"""An exception of the author's as an ``Error`` that can travel."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from flowkit.wire.bounds import ERROR_TYPE, cut
from flowkit.wire.messages import Error
from flowkit.wire.misuse import misuse

MAX_TEXT = 16 * 1024  # bytes of a message and of a traceback alike
_HERE = str(Path(__file__).parents[1]) + os.sep


def describe(error: BaseException) -> Error:
    """What an exception says of itself; one whose ``str()`` raises is survived."""
    return Error(type=cut(type_of(error), ERROR_TYPE), message=message_of(error), traceback=traceback_of(error))


def message_of(error: BaseException) -> str:
    """``str(error)``, capped; a note in its place when that raises; what is wrong with a ``Send`` or ``Gather``."""
    try:
        if isinstance(error, ValidationError) and (wrong := misuse(error)) is not None:
            return capped(wrong)
        return capped(str(error))
    except BaseException as second:  # noqa: BLE001 - the author's __str__ may raise anything, SystemExit too
        return f"(its str() raised {type_of(second)})"


def type_of(error: BaseException) -> str:
    """The name of its class; ``Exception`` where a metaclass gives none."""
    try:
        name = type(error).__name__
    except BaseException:  # noqa: BLE001 - as above
        name = None
    return capped(name) if isinstance(name, str) else "Exception"


def traceback_of(error: BaseException) -> str | None:
    """The traceback from the author's first frame on, capped; None when there is no frame of his."""
    trace = _author(error.__traceback__)
    if trace is None and error.__cause__ is None:
        return None
    try:
        lines = traceback.TracebackException(type(error), error, trace, compact=True).format()
        return capped("".join(lines).rstrip())
    except BaseException:  # noqa: BLE001 - notes, causes and source lines are the author's too
        return None


def capped(text: str) -> str:
    """At most ``MAX_TEXT`` bytes, the middle left out: a traceback says most at its two ends. Always valid UTF-8."""
    if type(text) is str and text.isascii() and len(text) <= MAX_TEXT:
        return text
    raw = text.encode(errors="replace")
    if len(raw) <= MAX_TEXT:
        return raw.decode()
    half = MAX_TEXT // 2 - 50
    gone = len(raw) - 2 * half
    head, tail = raw[:half].decode(errors="ignore"), raw[-half:].decode(errors="ignore")
    return f"{head}\n… {gone:,} bytes left out …\n{tail}"


def _author(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace

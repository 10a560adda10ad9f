"""An exception of the author's as an ``Error`` that can travel."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from flowkit.wire.bounds import ERROR_TYPE, cut
from flowkit.wire.messages import Error
from flowkit.wire.misuse import misuse

IN_MESSAGE = 3  # errors of a group that its message names
MAX_TEXT = 16 * 1024  # bytes of a message and of a traceback alike
_HERE = str(Path(__file__).parents[1]) + os.sep


def describe(error: BaseException) -> Error:
    """What an exception says of itself; one whose ``str()`` raises is survived."""
    return Error(type=cut(type_of(error), ERROR_TYPE), message=message_of(error), traceback=traceback_of(error))


def message_of(error: BaseException) -> str:
    """``str(error)``, capped; a note in its place when that raises; what is wrong with a ``Send`` or ``Gather``.

    A group says only how many errors it has, so its message goes on with the first ones of them.
    """
    try:
        if isinstance(error, ValidationError) and (wrong := misuse(error)) is not None:
            return capped(wrong)
        text = str(error)
        errors = list(islice(_leaves(error), IN_MESSAGE)) if isinstance(error, BaseExceptionGroup) else []
    except BaseException as second:  # noqa: BLE001 - the author's __str__ may raise anything, SystemExit too
        return f"(its str() raised {type_of(second)})"
    parts = (f"{type_of(one)}: {said}" if (said := message_of(one)) else type_of(one) for one in errors)
    return capped(f"{text}: {'; '.join(parts)}" if errors else text)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors in a group and in the groups in it, which are not groups themselves."""
    groups = [iter(group.exceptions)]  # no recursion: groups may stand in one another at any depth
    while groups:
        error = next(groups[-1], None)
        if error is None:
            groups.pop()
        elif isinstance(error, BaseExceptionGroup):
            groups.append(iter(error.exceptions))
        else:
            yield error


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

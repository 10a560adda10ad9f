"""What is printed: data on stdout, messages on stderr; no colour and no animation without a terminal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from flowkit.errors import FlowKitError
from flowkit.streams import discard, results

# C0 and C1 control characters but tab and newline, and the marks that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "grey": "90", "bold": "1"}


def data(text: str) -> None:
    """Print a line of data."""
    data_raw(clean(text, results()))


def data_marked(mark: str, colour: str, text: str) -> None:
    """Print a line of data behind a mark in colour."""
    data_raw(f"{paint(mark, colour, results())} {clean(text, results())}")


def data_json(value: Any) -> None:
    """Print a value as JSON: on one line, for a terminal indented."""
    data_raw(json.dumps(value, ensure_ascii=False, indent=2 if results().isatty() else None))


def data_raw(text: str, *, flush: bool = True) -> None:
    """Print text as it is on the stream of results.

    Raises:
        FlowKitError: it cannot be written, to a full disk for example.
        BrokenPipeError: whoever reads it has gone.
    """
    try:
        print(text, file=results(), flush=flush)
    except OSError as error:
        raise _unwritable(error) from None


def flush() -> None:
    """Write what the stream of results still holds; see ``data_raw`` for what it raises."""
    try:
        results().flush()
    except OSError as error:
        raise _unwritable(error) from None


def say(text: str) -> None:
    """Print a message on stderr."""
    message(clean(text, sys.stderr) + "\n")


def message(text: str) -> None:
    """Write text as it is on stderr; where that is impossible, there is nobody to tell, and no reason to stop."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a node has closed it
        sys.stderr.write(text)
        sys.stderr.flush()


def _unwritable(error: OSError) -> BrokenPipeError | FlowKitError:
    discard(results())  # it would fail again when the interpreter ends
    # Windows says of a pipe that nobody reads: invalid argument.
    if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL):
        return BrokenPipeError(error.errno, error.strerror)
    return FlowKitError(f"stdout cannot be written: {error.strerror}")


def clean(text: str, stream: TextIO) -> str:
    """Without control characters where they could reach a terminal: logs and outputs are other people's text."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if stream.isatty() else text


def paint(text: str, colour: str, stream: TextIO) -> str:
    """In colour, on a terminal whose user did not decline (``NO_COLOR``)."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def moment(seconds: float | None) -> str | None:
    """Unix seconds as RFC 3339 text in UTC, for JSON."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clock(seconds: float | None) -> str:
    """Unix seconds as local date and time, for people."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006


def duration(seconds: float | None) -> str:
    """``0.35 s``, ``12.3 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need; numbers to the right. Each cell on one line."""
    rows = list(rows)
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [bool(rows) and all(_is_number(row[at]) for row in rows) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in lines
    )


def outputs(value: dict[str, Any]) -> str:
    """A run's outputs for people: plain values first, one a line, then objects and lists of objects as tables."""
    plain = {key: inner for key, inner in value.items() if not _rows(inner) and not _flat(inner)}
    parts = [_pairs(plain)] if plain else []
    for key, inner in value.items():
        if _flat(inner):
            parts.append(f"{key}\n{_indent(_pairs(inner))}")
        elif _rows(inner):
            head = list(dict.fromkeys(column for row in inner for column in row))
            parts.append(f"{key}\n" + _indent(table(head, [[row.get(column) for column in head] for row in inner])))
    return "\n\n".join(parts)


def _pairs(value: dict[str, Any]) -> str:
    width = max(map(len, value))
    return "\n".join(f"{key.ljust(width)}  {_cell(inner)}".rstrip() for key, inner in value.items())


def _flat(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_plain, value.values()))


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


def _rows(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) and row and all(map(_is_plain, row.values())) for row in value)
    )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return " ".join(value.split()) if "\n" in value else value
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,g}"
        case _:
            return json.dumps(value, ensure_ascii=False)

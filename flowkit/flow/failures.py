"""Errors as runs and tasks keep them: JSON objects with ``type``, ``message``, ``node`` and perhaps ``cause``.

``cause`` is the failure that the task had to handle (``on_error``), so that the first error of a chain is never lost.
Apart from ``making``, for whoever only prints an error needs neither the models of messages nor the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 400  # characters of each error of a chain in one line


def chain(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The error, then its cause, then the cause of that, down to the first error."""
    link: Any = error
    while isinstance(link, Mapping):
        yield link
        link = link.get("cause")


def describe(error: Mapping[str, Any]) -> str:
    """An error on one line, such as ``KeyError: 'x'; while handling the failure of pay: OSError: no route``.

    A single error is given in full length; each error of a chain is cut to 400 characters.
    """
    first, *causes = chain(error)
    if not causes:
        return _text(first)
    handled = (f"{cause.get('node', 'a task')}: {_text(cause)[:LONGEST]}" for cause in causes)
    return "; while handling the failure of ".join((_text(first)[:LONGEST].rstrip("."), *handled))


def _text(error: Mapping[str, Any]) -> str:
    message = str(error.get("message") or "")
    return " ".join(f"{error.get('type', 'error')}{': ' * bool(message)}{message}".split())

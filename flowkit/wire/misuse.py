"""What is wrong with a ``Send``, ``Gather`` or ``Wait``, in the words of whoever wrote it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from flowkit.wire import bounds
from flowkit.wire.durations import UP_TO
from flowkit.wire.items import Gather, Send, Wait
from flowkit.wire.names import NODE_IN_WORDS

ITEMS = {item.__name__: item for item in (Send, Gather, Wait)}
_KINDS = ("constrained-str", "Send")  # how pydantic calls the two that a send may be
_SAID = {
    "tuple_type": "expected a list",
    "dict_type": "expected a dict",
    "float_type": "expected seconds, a number",
    "less_than_equal": f"expected seconds, {UP_TO}",  # of a duration; a count over its bound is explained in _text
    "string_pattern_mismatch": f"expected {NODE_IN_WORDS}",
    "unexpected_keyword_argument": "there is no such argument",
}
_SHOWN = 5  # problems
_LENGTH = 60  # characters of a value


def misuse(error: ValidationError) -> str | None:
    """The problems on one line; None when the error is about something else than these values."""
    item = ITEMS.get(error.title)
    if item is None:
        return None
    places: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False, include_context=False):
        places.setdefault(_place(item, problem["loc"]), []).append(problem)
    said = [f"{place} {text}".strip() for place, text in zip(places, map(_text, places.values()), strict=True)]
    more = f" and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else ""
    return f"{error.title}: {'; '.join(said[:_SHOWN])}{more}"


def _place(item: type[Any], loc: tuple[int | str, ...]) -> str:
    """``sends[3].delay`` from ``(0, 3, "Send", "delay")``; the first one may be the number of an argument."""
    place = ""
    for number, step in enumerate(loc):
        if number == 0 and isinstance(step, int):
            place = fields(item)[step].name if step < len(fields(item)) else f"argument {step + 1}"
        elif isinstance(step, int):
            place += f"[{step}]"
        elif step not in _KINDS:
            place += f".{step}" if place else step
    return place


def _text(problems: list[Any]) -> str:
    """What is wrong in one place; several problems there are one: it is neither of the two that a send may be."""
    first = problems[0]
    if first["type"] == "missing":
        return "is missing"
    shown = bounds.shown(first["input"], _LENGTH)
    if len(problems) > 1 and first["type"] != "string_pattern_mismatch":
        return f"is {shown}; expected a node name or a Send"
    if str(bounds.INT32) in first["msg"]:
        return f"is {shown}: expected {bounds.INT32:,} at most"
    if first["type"] == "value_error":
        text: str = first["msg"]
        return text.removeprefix("Value error, ")
    return f"is {shown}: {_SAID.get(first['type'], first['msg'])}"

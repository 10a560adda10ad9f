"""JSON that says what a reader would lose in silence: found, and named with its place.

orjson reads an integer over 64 bits as the nearest float, and of a key that stands twice in an object the last value;
it refuses infinity without saying where. What reads back as the very same bytes has lost nothing; this here is for all
other text, at the speed of Python's own reader.
"""

from __future__ import annotations

import json
import math
from typing import Any

INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # what orjson writes
TOO_LARGE = "an integer over 64 bits does not fit JSON here; send it as text"
_DIGITS = 20  # of the longest integer that fits, with its sign
_AS_ZEROS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_LONG, _LONG_NEGATIVE = b"0" * _DIGITS, b"-" + b"0" * (_DIGITS - 1)
_PLACE = 200  # characters of a path in a message
_SHOWN = 60  # characters of a key in a message


class Flaw:
    """What stands in the place of a number that cannot be kept. ``why`` says what is wrong with it."""

    def __init__(self, why: str) -> None:
        self.why = why


class Repeated(dict[str, Any]):
    """An object in which a key stands twice; of the others it holds the last value, as any reader would."""

    why = ""


_Step = tuple[str, "_Step"] | None  # the last step to a value, and where that began
_HOLDS = (Flaw, dict, list)


def may_have_large_integers(body: bytes) -> bool:
    """Whether some integer in it may be over 64 bits: it has so many digits in a row."""
    digits = body.translate(_AS_ZEROS)
    return _LONG in digits or _LONG_NEGATIVE in digits


def read(text: str | bytes, *, numbers: bool = True) -> Any:
    """Decode JSON; ``Flaw`` and ``Repeated`` stand where something would be lost.

    Args:
        text: what may be JSON.
        numbers: look at each number, which takes several times as long; otherwise they are known to be fine.

    Raises:
        ValueError: it is no JSON (``json.JSONDecodeError``), or no UTF-8.
        RecursionError: it is nested nearly a thousand deep.
    """
    if isinstance(text, bytes):
        text = text.decode()
    looked_at: Any = {"parse_int": _integer, "parse_float": _float} if numbers else {}
    return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, **looked_at)


def flaw(value: Any) -> str | None:
    """The first thing that would be lost of what ``read`` gave: its path and why; None when all can be kept."""
    todo: list[tuple[Any, _Step]] = [(value, None)]
    while todo:
        here, place = todo.pop()
        if isinstance(here, Flaw | Repeated):
            path = _path(place)
            return f"{path}: {here.why}" if path else here.why
        inside: list[tuple[Any, _Step]] = []
        if isinstance(here, dict):
            inside = [(inner, (f".{key}", place)) for key, inner in here.items() if isinstance(inner, _HOLDS)]
        elif isinstance(here, list):
            inside = [(inner, (f"[{index}]", place)) for index, inner in enumerate(here) if isinstance(inner, _HOLDS)]
        todo += reversed(inside)  # in the order of the text
    return None


def _path(place: _Step) -> str:
    steps: list[str] = []
    while place is not None:
        step, place = place
        steps.append(step)
    return "".join(reversed(steps)).removeprefix(".")[:_PLACE]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    marked = Repeated(made)
    marked.why = f"key {twice[:_SHOWN]!r} stands there twice, and only one of its values can be kept"
    return marked


def _integer(digits: str) -> int | Flaw:
    if len(digits) > _DIGITS or not INT_MIN <= int(digits) <= INT_MAX:
        return Flaw(TOO_LARGE)
    return int(digits)


def _float(digits: str) -> float | Flaw:
    number = float(digits)
    if math.isfinite(number):
        return number
    return Flaw(f"{digits[:_SHOWN]} is more than a 64-bit float can hold; send it as text")


def _constant(name: str) -> Flaw:
    return Flaw(f"{name} is no JSON number; leave it out or send null")

"""JSON in and out, with the limits that orjson leaves to its caller.

orjson writes NaN as ``null`` in silence, reads nesting to 1,024 but writes only to 254, refuses to write integers over
64 bits without saying where and reads them as floats, and keeps the last one of keys that stand twice. Here all of that
is an error that names the place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import orjson

from flowkit.errors import InvalidPayload, Unreadable
from flowkit.wire import exact

MAX_DEPTH = 200  # of a message: well under the 254 that orjson can write again
MAX_PAYLOAD_DEPTH = (
    MAX_DEPTH - 10
)  # of inputs and outputs: around them go a message, its items, the results of a Gather
PAGE = 4096  # bytes
_PLACE = 200  # characters of the path in a message: a list that contains itself has a long one


def loads(body: bytes) -> Any:
    """Decode JSON, all that it says.

    Raises:
        Unreadable: it is no JSON, not UTF-8, nested deeper than ``MAX_DEPTH``, or says what cannot be kept: a number
            over 64 bits, a key twice in an object; the detail names the path.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable("not-json", _flaw(body) or str(error)) from None
    # Depth cannot exceed the number of opening brackets, which is counted at memory speed; only a suspect is walked.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise Unreadable("too-deep", f"nested deeper than {MAX_DEPTH} levels")
    # What gives the very same bytes again has lost nothing. That is nearly all there is, as FlowKit wrote it, and costs
    # a third of reading it.
    if orjson.dumps(value) != body and (lost := _flaw(body, orjson_reads=True)) is not None:
        raise Unreadable("invalid", lost)
    return value


def parse(body: bytes) -> Any:
    """Decode JSON however deep it is, for those who ask whose it is and take nothing else from it.

    What cannot be kept is marked in the value, as ``exact.read`` does, and found there by ``exact.flaw``; but not where
    it is so deep that only orjson can read it.

    Raises:
        Unreadable: it is no JSON, not UTF-8, or so deep that nobody can tell (1,024 levels).
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if _flaw(body) is None:
            raise Unreadable("not-json", str(error)) from None
        return exact.read(body)
    if not deeper_than(value, MAX_DEPTH) and orjson.dumps(value) == body:
        return value
    try:
        return exact.read(body)
    except RecursionError:
        return value


def checked(part: Any) -> Any:
    """A part of what ``parse`` gave, as ``loads`` would have given it.

    Raises:
        Unreadable: it is nested too deep, or says what cannot be kept.
    """
    if deeper_than(part, MAX_DEPTH):
        raise Unreadable("too-deep", f"nested deeper than {MAX_DEPTH} levels")
    if (lost := exact.flaw(part)) is not None:
        raise Unreadable("invalid", lost)
    return part


def _flaw(body: bytes, *, orjson_reads: bool = False) -> str | None:
    """What cannot be kept of it, with its path; None when all can, or when it is no JSON at all."""
    # What is more than a float can hold orjson refuses by itself.
    numbers = not orjson_reads or exact.may_have_large_integers(body)
    try:
        return exact.flaw(exact.read(body, numbers=numbers))
    except (ValueError, RecursionError):
        return None


def dumps(value: Any) -> bytes:
    """Encode a value that is known to be JSON (checked by ``check`` where it came from an author)."""
    raw = orjson.dumps(value)
    # orjson (3.13) writes into a page and gives that away whole: 10,000 kept values of 200 bytes would be 40 MB.
    return bytes(memoryview(raw)) if len(raw) < PAGE else raw


def canonical(value: Any) -> bytes:
    """Encode a value of a message so that equal ones are equal bytes: keys in order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def by_value(value: Any) -> bytes:
    """Encode a value so that those that are equal as JSON values are equal bytes: keys in order, 1.0 as 1."""
    raw = canonical(value)
    return canonical(_integral(value)) if _FLOAT.search(raw) else raw


_FLOAT = re.compile(rb"\d[.e]")  # as orjson writes one; in a text it does no harm


def _integral(value: Any) -> Any:
    """The value with whole numbers as integers: JSON knows one kind of number, and booleans are none."""
    if isinstance(value, dict):
        return {key: _integral(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and exact.INT_MIN <= value <= exact.INT_MAX:
        return int(value)
    return value


def embed(raw: bytes) -> Any:
    """JSON that is encoded already, to stand inside a value given to ``dumps``."""
    return orjson.Fragment(raw)


def check(value: Any, where: str) -> None:
    """Check that ``value`` can travel as JSON and comes back the same.

    Args:
        value: anything an author returned.
        where: what it is called in the message, such as ``outputs``.

    Raises:
        InvalidPayload: a type that JSON does not have, NaN or infinity, an integer over 64 bits, a key that is no
            string, text with lone surrogates, or nesting over ``MAX_PAYLOAD_DEPTH``; the message names the path.
    """
    try:
        _check(value, 0)
    except _Misfit as misfit:
        raise InvalidPayload((where + misfit.path)[:_PLACE], misfit.why) from None


def frozen(value: Any, where: str) -> Any:
    """Check ``value`` as ``check`` does, and return a copy, which does not change when the author changes the value.

    Raises:
        InvalidPayload: as ``check``.
    """
    check(value, where)
    return orjson.loads(orjson.dumps(value))


def encode_object(value: Any, where: str) -> bytes:
    """Check and encode a JSON object; ``InvalidPayload`` when it is none."""
    if not isinstance(value, dict):
        raise InvalidPayload(where, f"must be a dict, got {type(value).__name__}")
    check(value, where)
    return dumps(value)


class _Misfit(Exception):
    """What JSON cannot carry; its path is put together on the way out, as nobody asks for it when all is well."""

    def __init__(self, why: str) -> None:
        self.why, self._steps = why, [""]

    def stands_in(self, step: str) -> None:
        """It was found behind this step."""
        self._steps.append(step)

    @property
    def path(self) -> str:
        """From the outermost step on."""
        return "".join(reversed(self._steps))


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_letters(value)
    elif kind is int:
        if not exact.INT_MIN <= value <= exact.INT_MAX:
            raise _Misfit(exact.TOO_LARGE)
    elif kind is float:
        if not math.isfinite(value):
            raise _Misfit(f"{value} is no JSON number; leave it out or send null")
    elif kind is dict:
        _check_dict(value, depth)
    elif kind is list or kind is tuple:
        _check_list(value, depth)
    elif value is not None and kind is not bool:
        raise _Misfit(f"{kind.__name__} is no JSON type; convert it to text, a number, a list or a dict")


def _check_dict(value: dict[Any, Any], depth: int) -> None:
    _check_depth(depth)
    for key in value:
        if type(key) is not str:
            raise _Misfit(f"key {key!r} is {type(key).__name__}, JSON keys are text")
        if not key.isascii():
            _check_letters(key)
    try:
        for key, inner in value.items():  # noqa: B007 - the one that does not fit
            _check(inner, depth + 1)
    except _Misfit as misfit:
        misfit.stands_in(f".{key}")
        raise


def _check_list(value: Sequence[Any], depth: int) -> None:
    _check_depth(depth)
    try:
        for index, inner in enumerate(value):  # noqa: B007 - the one that does not fit
            _check(inner, depth + 1)
    except _Misfit as misfit:
        misfit.stands_in(f"[{index}]")
        raise


def _check_letters(text: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _Misfit("text with a lone surrogate cannot be UTF-8")


def _check_depth(depth: int) -> None:
    if depth >= MAX_PAYLOAD_DEPTH:
        raise _Misfit(f"nested deeper than {MAX_PAYLOAD_DEPTH} levels")


def deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and dicts stand in each other more than ``limit`` levels deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True

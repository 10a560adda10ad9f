"""Inputs from the command line: ``--input JSON|@file|-`` and ``-F key=value``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from flowkit.errors import UsageError
from flowkit.wire import exact

V = TypeVar("V")


def inputs_of(text: str | None, fields: Sequence[str] | None) -> dict[str, Any]:
    """The inputs of a run. Fields are laid over what ``--input`` gave.

    Args:
        text: JSON, ``@`` and a file's name, or ``-`` for stdin.
        fields: ``key=value``; the value is JSON where it parses, else text.

    Raises:
        UsageError: it is no JSON object, cannot be read, or says what cannot be kept: a number over 64 bits, a key
            twice.
    """
    from flowkit.wire import codec

    inputs = _object(text) | _once([_pair(_argument(field)) for field in fields or ()], "-F")
    codec.check(inputs, "inputs")  # what is no JSON though it parses: odd bytes of an argument, nesting too deep
    return inputs


def tags_of(tags: Sequence[str] | None) -> dict[str, str]:
    """``key=value`` as tags: text always."""
    return _once([_split(_argument(tag), "--tag") for tag in tags or ()], "--tag")


def _once(pairs: Sequence[tuple[str, V]], option: str) -> dict[str, V]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UsageError(f"{option} {twice}=… is there twice, and only one of its values can be kept; leave one out")
    return made


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    where = "--input"
    try:
        if text == "-":
            where = "--input - (stdin)"
            text = _stdin()
        elif text.startswith("@"):
            where = f"--input {text}"
            text = Path(text[1:]).read_text("utf-8")
        else:
            text = _argument(text)
        value = exact.read(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UsageError(
            f"{where}: no JSON ({error.msg} at {place}). Expected an object such as '{{\"a\": 1}}', @file.json or -"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{where}: not UTF-8 text, so no JSON") from None
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply") from None
    if (lost := exact.flaw(value)) is not None:
        raise UsageError(f"{where}: {lost}")
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected a JSON object such as '{{\"a\": 1}}', got {_kind(value)}")
    return value


def _stdin() -> str:
    """What stdin has, as JSON is encoded, whatever the locale says."""
    raw = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if raw is None else raw.read().decode("utf-8")


def _argument(text: str) -> str:
    """An argument of the command line whose bytes are UTF-8 in a locale that is not."""
    try:
        return text.encode("ascii", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return text


def _pair(field: str) -> tuple[str, Any]:
    key, value = _split(field, "-F")
    try:
        json.loads(value, parse_constant=_no_constant, parse_int=str, parse_float=str)
        found = exact.read(value)
    except (ValueError, RecursionError):
        return key, value
    if (lost := exact.flaw(found)) is not None:
        raise UsageError(f"-F {key}: {lost}")
    return key, found


def _split(pair: str, option: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise UsageError(f"{option} {pair!r}: expected KEY=VALUE")
    return key, value


def _no_constant(name: str) -> Any:
    """``NaN`` and ``Infinity`` are Python's, not JSON's: text."""
    raise ValueError(name)


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")

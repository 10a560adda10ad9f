"""A JSON Schema in a few words, for people."""

from __future__ import annotations

import json
import math
from typing import Any

from flowkit.flow.edges.schema import Part, resolve

NOTHING = "nothing"  # where a property cannot be
_DEPTH = 3  # references and choices inside one another
_SHOWN = 5  # choices
_LENGTH = 40  # characters of a value


def describe(schema: Any, root: Any, depth: int = 0) -> str:
    """What fits a schema: ``integer from 1``, ``string or null``, ``"a" or "b"``.

    Args:
        schema: it.
        root: the whole schema that it stands in.
        depth: how many references and choices lead to it.
    """
    if not isinstance(schema, dict):
        return NOTHING if schema is False else "anything"
    if isinstance(reference := schema.get("$ref"), str) and depth < _DEPTH:
        return describe(resolve(reference, root), root, depth + 1)
    for word in ("anyOf", "oneOf"):
        choices = schema.get(word)
        if isinstance(choices, list) and choices and depth < _DEPTH:
            return _any_of([describe(one, root, depth + 1) for one in choices[: _SHOWN + 1]])
    part = Part(schema, root)
    if part.values is not None:
        return _any_of([_value(value) for value in part.values[: _SHOWN + 1]])
    if "type" not in schema:
        return "object" if part.properties else "anything"
    return _any_of([_kind(kind, part) for kind in sorted(part.types, key=lambda kind: (kind == "null", kind))])


def _any_of(words: list[str]) -> str:
    more = ["…"] if len(words) > _SHOWN else []
    return " or ".join([*dict.fromkeys(words[:_SHOWN]), *more])


def _kind(kind: str, part: Part) -> str:
    match kind:
        case "integer" | "number":
            limits = part.numbers
            low = f" {'over' if limits.open_low else 'from'} {limits.low:g}" if limits.low > -math.inf else ""
            high = f" {'under' if limits.open_high else 'up to'} {limits.high:g}" if limits.high < math.inf else ""
            return kind + low + high
        case "string":
            format_of = part.schema.get("format")
            return f"string ({format_of})" if isinstance(format_of, str) else kind + _long(part, "Length", "characters")
        case "array":
            return kind + _long(part, "Items", "items")
        case _:
            return kind


def _long(part: Part, of: str, what: str) -> str:
    lengths = part.lengths(of)
    low = f" from {lengths.low:g}" if lengths.low > 0 else ""
    high = f" up to {lengths.high:g}" if lengths.high < math.inf else ""
    return f"{low}{high} {what}" if low or high else ""


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"

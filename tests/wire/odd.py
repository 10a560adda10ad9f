"""Odd messages, made from the models: each field of each message in turn holds what should not be there.

A field that is added to a model is among them by itself.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

UUID = "0b6f6a1c-4c8e-4f0e-8a8a-5b7f3c1d2e4f"
TEXTS = ("a", "r1", "5/s", UUID, "2026-01-31T12:00:00.250000Z", "text")
_random = random.Random(11)  # the same in each run
LIST = 1_000  # entries of lists that are made at their bound


def letters(count: int) -> str:
    """Random text that does not compress below half."""
    return _random.randbytes(count // 2 + 1).hex()[:count]


def astral(count: int) -> str:
    """Random text of four bytes a character, which does hardly compress at all."""
    return "".join(chr(_random.randrange(0x10000, 0x110000)) for _ in range(count))


ODD: tuple[Any, ...] = (
    letters(9_000), astral(3_000), "\0", "", "\u202e\x1b[2J\x85\u2028", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59", True, None, [], {}, [[]], {letters(9_000): "v"}, {"a": {"b": [None]}},
    0, -1, 0.5, 2**31, 2**63, 2**64 - 1, -(2**63), 1e308, -1e308, 5e-324,
)  # fmt: skip
Place = tuple[int | str, ...]


class Odd(NamedTuple):
    """A message in which one place holds something odd."""

    place: Place
    what: str
    message: dict[str, Any]


class Field(NamedTuple):
    """A place in a message, and what its schema says of it."""

    place: Place
    schema: dict[str, Any]


class Sample:
    """A message with all that it may have, and the places in it.

    Args:
        model: of the contract.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        whole = model.model_json_schema()
        self._definitions = whole.get("$defs", {})
        self.fields: list[Field] = []
        self.message: dict[str, Any] = self._value(whole, ())

    def odd(self) -> Iterator[Odd]:
        """Each place with each odd value, and with what is at its bounds and just over them."""
        for place, schema in self.fields:
            for value in (*ODD, *self._at_bounds(schema)):
                message = copy.deepcopy(self.message)
                holder: Any = message
                for step in place[:-1]:
                    holder = holder[step]
                holder[place[-1]] = value
                yield Odd(place, f"{value!r:.40}", message)

    def _at_bounds(self, schema: dict[str, Any]) -> Iterator[Any]:
        for one in self._choices(schema):
            if longest := one.get("maxLength"):
                yield from (letters(longest), astral(longest), letters(longest + 1))
            if "maximum" in one:
                yield from (one["maximum"], one["maximum"] + 1)
            if "minimum" in one:
                yield from (one["minimum"], one["minimum"] - 1)
            if (most := one.get("maxProperties")) and most <= LIST:
                key, value = one["propertyNames"]["maxLength"], one["additionalProperties"]["maxLength"]
                yield {astral(key): astral(value) for _ in range(most)}
                yield {letters(key): "v" for _ in range(most + 1)}

    def _value(self, schema: dict[str, Any], place: Place) -> Any:
        if place and place[-1] in place[-2:-1]:
            return None  # a model in itself: once is enough
        if place:
            self.fields.append(Field(place, schema))
        choices = self._choices(schema)
        schema = next((one for one in choices if one.get("type") != "null" and "properties" in one), choices[0])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "object":
                if "properties" in schema:
                    return {name: self._value(one, (*place, name)) for name, one in schema["properties"].items()}
                inner = schema.get("additionalProperties")
                return {"key": self._value(inner, (*place, "key")) if isinstance(inner, dict) else 1}
            case "array":
                entries = schema.get("prefixItems") or self._choices(schema.get("items", {}))
                return [self._value(one, (*place, number)) for number, one in enumerate(entries)]
            case "string":
                return next(text for text in TEXTS if _fits(text, schema))
            case "integer" | "number":
                return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            case "boolean":
                return False
        return None

    def _choices(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return [choice for one in schema["anyOf"] for choice in self._choices(one)]
        return [schema]


def _fits(text: str, schema: dict[str, Any]) -> bool:
    forms = {"uuid": UUID, "date-time": TEXTS[4]}
    if form := forms.get(schema.get("format", "")):
        return text == form
    return re.search(schema.get("pattern", ""), text) is not None


def encode(message: Any) -> bytes:
    """As another language would: not in the form that FlowKit writes."""
    return json.dumps(message, ensure_ascii=False).encode()

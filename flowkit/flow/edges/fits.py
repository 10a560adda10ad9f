"""Whether data of one JSON Schema can fit another: a search for the proof that it cannot.

``clash`` finds a place where no value can fit both. When it finds none, that says nothing: it may still be that nothing
fits. So whoever is told of a clash need not doubt it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from flowkit.flow.edges.schema import MORE, Part, Parts, parts, same, type_of
from flowkit.flow.edges.words import describe

DEPTH = 40  # levels that are looked into: schemas from outside may nest as deeply as they like
STEPS = 20_000  # comparisons: more would take seconds, and schemas of that size clash near their surface
# What pydantic makes of JSON values of another type, unless it is told to be strict.
_CONVERTED = {
    "boolean": ("string", "integer", "number"),
    "integer": ("string", "boolean"),
    "number": ("string", "boolean"),
}


@dataclass(frozen=True, slots=True)
class Clash:
    """No value fits both here: ``path`` leads to the place from the whole."""

    path: str
    sent: str
    taken: str


HERE = Clash("", "", "")


@dataclass(frozen=True, slots=True)
class Reading:
    """How strictly two schemas are read.

    Args:
        converting: text may become a number, and so on, as pydantic does it; what takes more than its schema tells of
            takes anything.
        filled: what may be left out is there, and lists are not empty.
    """

    converting: bool = True
    filled: bool = False


SURE = Reading()  # a clash under it is certain
STRICT = Reading(converting=False, filled=True)  # a clash under it deserves a look


def clash(sent: Any, taken: Any, reading: Reading = SURE) -> Clash | None:
    """Why no value fits both; None when there may be one.

    Args:
        sent: the schema of what is sent.
        taken: the schema that it has to fit.
        reading: how strictly.
    """
    return _Search(sent, taken, reading).look(sent, taken, 0)


class _Search:
    def __init__(self, sent: Any, taken: Any, reading: Reading) -> None:
        self._roots, self._reading = (sent, taken), reading
        self._known: dict[tuple[int, int], Clash | None] = {}
        self._steps = 0

    def look(self, sent: Any, taken: Any, depth: int) -> Clash | None:
        key = (id(sent), id(taken))
        if key in self._known:
            return self._known[key]
        self._steps += 1
        if depth > DEPTH or self._steps > STEPS:
            return None
        self._known[key] = None  # a schema that contains itself: there is no proof in going round
        self._known[key] = found = self._compare(sent, taken, depth)
        return found

    def _compare(self, sent: Any, taken: Any, depth: int) -> Clash | None:
        ours, theirs = parts(sent, self._roots[0]), parts(taken, self._roots[1])
        if self._reading.converting and any(part.schema.get(MORE) is True for part in theirs.all):
            return None
        found = HERE if ours.never or theirs.never else self._one_by_one(ours, theirs, depth)
        found = found or self._every_choice(ours, theirs, sent, taken, depth)
        if found is None or found.path:
            return found
        return Clash("", describe(sent, self._roots[0]), describe(taken, self._roots[1]))

    def _one_by_one(self, ours: Parts, theirs: Parts, depth: int) -> Clash | None:
        pairs = ((our, their) for our in ours.all for their in theirs.all)
        return next(filter(None, (self._parts_clash(our, their, depth) for our, their in pairs)), None)

    def _every_choice(self, ours: Parts, theirs: Parts, sent: Any, taken: Any, depth: int) -> Clash | None:
        """The clash with a list of choices, of which none fits."""
        for choices in filter(None, ours.choices):
            found = [self.look(choice, taken, depth + 1) for choice in choices]
            if None not in found:
                return _nearest(found)
        for choices in filter(None, theirs.choices):
            found = [self.look(sent, choice, depth + 1) for choice in choices]
            if None not in found:
                return _nearest(found)
        return None

    def _parts_clash(self, our: Part, their: Part, depth: int) -> Clash | None:
        """The first clash of the types that both allow, when they clash in each of them."""
        common = _common(our.types, their.types)
        if self._reading.converting and _converted(our.types - common, their):
            return None
        first: Clash | None = None
        for kind in sorted(common):
            found = self._type_clash(kind, our, their, depth)
            if found is None:
                return None
            first = first or found
        return first or HERE

    def _type_clash(self, kind: str, our: Part, their: Part, depth: int) -> Clash | None:
        if _values_clash(kind, our, their):
            return HERE
        match kind:
            case "integer" | "number":
                empty = (our.numbers & their.numbers).empty
            case "string":
                taken = their.lengths("Length")
                if self._reading.converting:
                    taken = taken._replace(high=math.inf)  # it may be stripped of white space first
                empty = (our.lengths("Length") & taken).empty
            case "array":
                return self._arrays_clash(our, their, depth)
            case "object":
                return self._objects_clash(our, their, depth)
            case _:
                empty = False
        return HERE if empty else None

    def _arrays_clash(self, our: Part, their: Part, depth: int) -> Clash | None:
        lengths = our.lengths("Items") & their.lengths("Items")
        if self._reading.converting and their.schema.get("uniqueItems") is True and lengths.low > 0:
            return None  # what comes twice is counted once
        if lengths.empty:
            return HERE
        there = max(lengths.low, 1 if self._reading.filled and lengths.high >= 1 else 0)
        tuples = [len(first) for part in (our, their) if isinstance(first := part.schema.get("prefixItems"), list)]
        for index in range(int(min(there, max(tuples, default=0) + 1))):  # behind the tuples all items are alike
            found = self.look(our.item(index), their.item(index), depth + 1)
            if found is not None:
                return _within(f"[{index}]" if tuples else "[]", found)
        return None

    def _objects_clash(self, our: Part, their: Part, depth: int) -> Clash | None:
        for name in self._present(our, their):
            found = self.look(our.property(name), their.property(name), depth + 1)
            if found is not None:
                return _within(name, found)
        return None

    def _present(self, our: Part, their: Part) -> Iterator[str]:
        """Properties that every object has which fits both."""
        yield from dict.fromkeys([*their.required, *our.required])
        if self._reading.filled:
            yield from (name for name in our.properties if their.property(name) is not True)


def _within(step: str, found: Clash) -> Clash:
    joint = "" if not found.path or found.path.startswith("[") else "."
    return replace(found, path=f"{step}{joint}{found.path}")


def _nearest(found: list[Clash | None]) -> Clash:
    """The one that lies inside, when there is just one: the others are of another kind altogether."""
    inside = [one for one in found if one is not None and one.path]
    return inside[0] if len(inside) == 1 else HERE


def _common(ours: frozenset[str], theirs: frozenset[str]) -> frozenset[str]:
    """Types that both allow; of an integer and a number it is the integer."""
    common = ours & theirs
    if ("integer" in ours and "number" in theirs) or ("number" in ours and "integer" in theirs):
        common |= {"integer"}
    return common


def _converted(sent: frozenset[str], their: Part) -> bool:
    """Whether a value of these types may be converted to what is taken."""
    for kind in their.types:
        ways: tuple[str, ...] = _CONVERTED.get(kind, ())
        if kind == "string" and "format" in their.schema:
            ways = ("integer", "number")  # Unix seconds for a date, and the like
        elif kind == "array" and "prefixItems" in their.schema:
            ways = ("object",)  # a NamedTuple takes its items by name too
        if sent & set(ways):
            return True
    return False


def _values_clash(kind: str, our: Part, their: Part) -> bool:
    """Whether one side names its values of this type, and the other side refuses each of them."""
    for one, other in ((our, their), (their, our)):
        if one.values is None:
            continue
        if not any(_is(value, kind) and _may_be(value, other) and _may_be(value, one) for value in one.values):
            return True
    return False


def _is(value: Any, kind: str) -> bool:
    return type_of(value) == kind or (kind == "number" and type_of(value) == "integer")


def _may_be(value: Any, part: Part) -> bool:
    if part.values is not None and not any(same(value, one) for one in part.values):
        return False
    if not _common(frozenset({type_of(value)}), part.types):
        return False
    match value:
        case bool():
            return True
        case int() | float():
            numbers = part.numbers
            at_low, at_high = value == numbers.low and numbers.open_low, value == numbers.high and numbers.open_high
            return numbers.low <= value <= numbers.high and not at_low and not at_high
        case _:
            return True

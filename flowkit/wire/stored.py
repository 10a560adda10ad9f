"""Messages as a store has kept them, perhaps since before a field had a bound: nobody can send them again."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flowkit.errors import Unreadable
from flowkit.wire import bounds, codec

M = TypeVar("M", bound=BaseModel)


def read_stored(model: type[M], raw: bytes) -> M | None:
    """Read what a store has kept: text over its bound is cut, what does not fit otherwise is left out.

    Args:
        model: a message or a part of one.
        raw: its JSON.

    Returns:
        None when nothing can be made of it.
    """
    try:
        value = codec.loads(raw)
        return model.model_validate(value)
    except Unreadable:
        return None
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            _mend(value, problem)
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def _mend(value: Any, problem: Any) -> None:
    *outer, last = problem["loc"] or (None,)
    if not isinstance(value, dict):
        return
    try:
        holder = value
        for step in outer:
            holder = holder[step]
        if problem["type"] == "string_too_long" and isinstance(holder[last], str):
            holder[last] = bounds.cut(holder[last], problem["ctx"]["max_length"])
            return
    except (KeyError, IndexError, TypeError):  # the place of a key, or one that was left out just now
        pass
    value.pop(problem["loc"][0] if problem["loc"] else None, None)

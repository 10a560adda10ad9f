"""What ``main`` says that it returns, read from its annotation: plain Python typing.

``async def main() -> tuple[list[Literal["store", "report"]], Resized, str]`` names what may follow, and what that gets.
Nothing of it is enforced when a task runs: it is for ``flowkit check`` and ``flowkit graph``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Never, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel

from flowkit.errors import InvalidNode
from flowkit.wire import names

_NOTHING = (Never, NoReturn)
_ANYTHING = (Any, object, inspect.Parameter.empty)
_LISTS = (list, tuple, Sequence, Iterable)
_DICTS = (dict, Mapping)
_EXPECTED = "expected tuple[list[…], outputs, str]"


@dataclass(frozen=True)
class Declared:
    """What a node says of its results.

    Args:
        outputs: the annotation of its outputs; None: not declared.
        next: names that may follow; None: not declared.
        plain: those of them that it names plainly: their inputs are its outputs.
        others: it may name others as well.
        problem: why the annotation says nothing, where it seems to be meant to.
    """

    outputs: Any = None
    next: tuple[str, ...] | None = None
    plain: tuple[str, ...] = ()
    others: bool = False
    problem: str = ""


def declared(main: Callable[..., Any], following: tuple[str, ...] | None, node: str) -> Declared:
    """Read the annotation of ``main``.

    Args:
        main: the author's function.
        following: the names that ``Node(next=…)`` says beside it.
        node: what the node is called in messages.

    Raises:
        InvalidNode: it names something that cannot be the name of a node.
    """
    annotation = _bare(inspect.signature(main, eval_str=True).return_annotation)
    try:
        results = list(_results(annotation))
    except TypeError as error:
        return Declared(next=following, problem=str(error))
    if not results and annotation in _NOTHING:
        return Declared(next=following or ())
    plain: dict[str, None] = {}
    open_ended = not results
    for items, _ in results:
        named, others = _items(items)
        plain.update(dict.fromkeys(named))
        open_ended |= others
    for name in plain:
        if not names.is_node(name):
            raise InvalidNode(f"node {node!r}: the annotation of main names {name!r}; expected {names.NODE}")
    kinds = [kind for _, kind in results]
    outputs, problem = _outputs(kinds)
    every = tuple(dict.fromkeys([*plain, *(following or ())]))
    known = every or following is not None or not open_ended
    return Declared(
        outputs=outputs,
        next=every if known else None,
        plain=tuple(plain),
        others=known and open_ended and following is None,
        problem=problem,
    )


def names_of(following: object, node: str) -> tuple[str, ...] | None:
    """Check what stands in ``Node(next=…)``.

    Raises:
        InvalidNode: it is no list of names.
    """
    if following is None:
        return None
    if isinstance(following, str) or not isinstance(following, Iterable):
        raise InvalidNode(f"node {node!r}: next={following!r}; expected names of nodes in a tuple: next=({node!r},)")
    found = tuple(following)
    for name in found:
        if not isinstance(name, str) or not names.is_node(name):
            raise InvalidNode(f"node {node!r}: next has {name!r}; expected names of nodes, {names.NODE}")
    return tuple(dict.fromkeys(map(str, found)))


def _results(annotation: Any) -> Iterator[tuple[Any, Any]]:
    """The first two parts of each tuple that may be returned; none when nothing is said.

    Raises:
        TypeError: it is something else than such tuples.
    """
    kind = _bare(annotation)
    if kind in _ANYTHING or kind in _NOTHING or kind is tuple:
        return
    if _is_union(kind):
        for choice in get_args(kind):
            yield from _results(choice)
        return
    parts = get_args(kind)
    if get_origin(kind) is not tuple or len(parts) != 3 or Ellipsis in parts:
        raise TypeError(f"main is annotated to return {_said(kind)}; {_EXPECTED}")
    yield parts[0], parts[1]


def _items(annotation: Any) -> tuple[list[str], bool]:
    """Names in a list of what follows, and whether there may be others."""
    kind = _bare(annotation)
    if _is_union(kind):
        found = [_items(choice) for choice in get_args(kind)]
    elif get_origin(kind) in _LISTS and (get_args(kind) or kind == tuple[()]):
        found = [_item(part) for part in get_args(kind) if part is not Ellipsis]
    else:
        return [], True
    return [name for named, _ in found for name in named], any(others for _, others in found)


def _item(annotation: Any) -> tuple[list[str], bool]:
    kind = _bare(annotation)
    if kind in _NOTHING:
        return [], False
    if _is_union(kind):
        found = [_item(choice) for choice in get_args(kind)]
        return [name for named, _ in found for name in named], any(others for _, others in found)
    if get_origin(kind) is Literal:
        return [str(name) for name in get_args(kind)], False
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return [name.value for name in kind], False
    return [], True


def _outputs(kinds: list[Any]) -> tuple[Any, str]:
    """The annotation of the outputs, when it says something, and what is wrong with it otherwise."""
    flat = [choice for kind in kinds for choice in _choices(kind) if choice not in _NOTHING]
    for kind in flat:
        if kind in _ANYTHING or kind in _DICTS or (get_origin(kind) in _DICTS and get_args(kind)[1:] == (Any,)):
            return None, ""  # one of them may be anything
        if not (_is_model(kind) or is_typed_dict(kind) or get_origin(kind) in _DICTS):
            said = f"{_said(kind)} as outputs; expected a pydantic model, a TypedDict or a dict"
            return None, f"main is annotated to return {said}"
    return (Union[tuple(flat)] if flat else None), ""  # noqa: UP007 - of as many as there are


def _choices(annotation: Any) -> Iterator[Any]:
    kind = _bare(annotation)
    if _is_union(kind):
        for choice in get_args(kind):
            yield from _choices(choice)
    else:
        yield kind


def _bare(annotation: Any) -> Any:
    """Without the names that it was given: type aliases and ``Annotated``."""
    while True:
        if type(annotation).__name__ == "TypeAliasType":  # of typing, or of typing_extensions before Python 3.12
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        else:
            return annotation


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_model(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, BaseModel)


def is_typed_dict(kind: Any) -> bool:
    """Whether it is a TypedDict, of typing or of typing_extensions."""
    return hasattr(get_origin(kind) or kind, "__required_keys__")


def _said(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")

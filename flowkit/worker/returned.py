"""What ``main`` returned, checked: ``(nodes, outputs, message)``."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from flowkit.errors import FlowKitError, InvalidPayload
from flowkit.flow.limits import Limits
from flowkit.wire import bounds, codec, names
from flowkit.wire.items import Gather, Item, Send, Wait, wrap
from flowkit.wire.messages import Object

_SHAPE = 'expected (nodes, outputs, message), such as [], {"result": 3}, "Success"'


class InvalidReturn(FlowKitError):
    """``main`` returned something that is no ``(nodes, outputs, message)``."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A value of ``main`` that can travel."""

    nodes: tuple[Item, ...]
    outputs: Object
    message: str


def check_returned(value: object, limits: Limits) -> Returned:
    """Check what ``main`` returned.

    Raises:
        InvalidReturn: the wrong shape, a name that cannot be one, or over a limit.
        InvalidPayload: a value that JSON cannot carry; the path is named.
    """
    if not isinstance(value, tuple | list):
        raise InvalidReturn(f"main returned {_kind(value)}; {_SHAPE}")
    if len(value) != 3:
        raise InvalidReturn(f"main returned {len(value)} values; {_SHAPE}")
    nodes, outputs, message = value
    if not isinstance(message, str):
        raise InvalidReturn(f"message is {_kind(message)}; expected text; {_SHAPE}")
    codec.check(str(message), "message")
    if isinstance(outputs, BaseModel):
        outputs = outputs.model_dump(mode="json", by_alias=True)  # as its JSON Schema says, which is announced
    if not isinstance(outputs, dict):
        raise InvalidReturn(f"outputs is {_kind(outputs)}; expected a dict or a pydantic model; {_SHAPE}")
    codec.check(outputs, "outputs")
    return Returned(_nodes(nodes, limits), outputs, bounds.cut(str(message)))


def _nodes(nodes: object, limits: Limits) -> tuple[Item, ...]:
    if isinstance(nodes, str):
        raise InvalidReturn(f"nodes is the text {nodes[:70]!r}; expected a list of names: [{nodes[:70]!r}]")
    if isinstance(nodes, Send | Gather | Wait):
        kind = type(nodes).__name__
        raise InvalidReturn(f"nodes is a {kind}; expected a list of names and values: [{kind}(…)]")
    if not isinstance(nodes, list | tuple):
        raise InvalidReturn(f"nodes is {_kind(nodes)}; expected a list; {_SHAPE}")
    if len(nodes) > limits.max_tasks:
        raise InvalidReturn(f"nodes has {len(nodes):,} items, over the limit of {limits.max_tasks:,} (max_tasks)")
    return tuple(_item(item, f"nodes[{index}]", limits) for index, item in enumerate(nodes))


def _item(item: object, where: str, limits: Limits) -> Item:
    match item:
        case str():
            if not names.is_node(item):
                raise InvalidReturn(f"{where}: {item[:70]!r} is no node name; expected {names.NODE}")
            return str(item)
        case Send():
            _check_send(item, where)
        case Gather():
            if len(item.sends) > limits.max_gather:
                raise InvalidReturn(
                    f"{where}: a Gather of {len(item.sends):,} sends is over the limit of {limits.max_gather:,} "
                    "(max_gather); gather in groups, one Gather inside another"
                )
            for index, send in enumerate(item.sends):
                _check_send(send, f"{where}.sends[{index}]")
            _check_send(item.then, f"{where}.then")
        case Wait():
            _check_send(item.then, f"{where}.then")
            _check_send(item.on_timeout, f"{where}.on_timeout")
        case _:
            raise InvalidReturn(f"{where} is {_kind(item)}; expected a node name, Send, Gather or Wait")
    return wrap(item)


def _check_send(send: object, where: str) -> None:
    if isinstance(send, Send) and send.inputs is not None:
        codec.check(send.inputs, f"{where}.inputs")


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


__all__ = ["InvalidPayload", "InvalidReturn", "Returned", "check_returned"]

"""What a node may name as downstream beside plain node names: ``Send``, ``Gather`` and ``Wait``.

In JSON an item is a name, ``{"send": {…}}``, ``{"gather": {…}}`` or ``{"wait": {…}}``; the classes ``SendItem``,
``GatherItem`` and ``WaitItem`` are those wrappers.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from flowkit.wire.bounds import ENTRIES, SIGNAL, Count
from flowkit.wire.durations import Duration, Timeout
from flowkit.wire.names import NodeName

_strict = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


def _known_fields(cls: type[Any], data: Any) -> Any:
    """Ignore unknown fields that came by the wire; a misspelt keyword in Python stays an error."""
    if isinstance(data, dict):
        known = cls.__dataclass_fields__
        return {key: value for key, value in data.items() if key in known}
    return data


def _refuse_detached(why: str, *sends: str | Send | None) -> None:
    for send in sends:
        if isinstance(send, Send) and send.detached:
            raise ValueError(f"Send({send.node!r}, detached=True) cannot stand here: {why}; return it beside")


@dataclass(frozen=True, config=_strict)
class Send:
    """One task with inputs of its own.

    Args:
        node: name of the node that runs it.
        inputs: a JSON object; without it, the outputs of the task that returns this.
        delay: seconds before it is sent.
        detached: begin a run of its own with it, whose parent is this run. Nothing waits for it, nothing follows from
            its failure.
    """

    node: NodeName
    inputs: dict[str, Any] | None = None
    delay: Duration = dataclasses.field(default=0, kw_only=True)
    detached: Annotated[bool, Field(exclude_if=operator.not_)] = dataclasses.field(default=False, kw_only=True)

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown(cls, data: Any) -> Any:
        return _known_fields(cls, data)


@dataclass(frozen=True, config=_strict)
class Gather:
    """Run all sends, then ``then`` exactly once.

    Its inputs are the outputs of the task that returns this, then ``then``'s own when it is a ``Send``, then
    ``results``: the values in the order of the sends.

    Args:
        sends: tasks to run at the same time; plain names mean the outputs as inputs.
        then: the node that goes on.
        return_exceptions: a branch that fails gives ``{"error": …}`` as its value instead of failing all.
        max_concurrency: how many branches run at a time.
        timeout: seconds for all branches together.
    """

    sends: Annotated[tuple[NodeName | Send, ...], Field(max_length=ENTRIES)]
    then: NodeName | Send
    return_exceptions: bool = dataclasses.field(default=False, kw_only=True)
    max_concurrency: Count | None = dataclasses.field(default=None, kw_only=True)
    timeout: Timeout | None = dataclasses.field(default=None, kw_only=True)

    if TYPE_CHECKING:  # pydantic makes a tuple of any sequence, which the field's type does not say

        def __init__(
            self,
            sends: Sequence[str | Send],
            then: str | Send,
            *,
            return_exceptions: bool = False,
            max_concurrency: int | None = None,
            timeout: float | None = None,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown(cls, data: Any) -> Any:
        return _known_fields(cls, data)

    @model_validator(mode="after")
    def _none_detached(self) -> Gather:
        _refuse_detached("a Gather waits for its sends", *self.sends)
        _refuse_detached("what goes on after a Gather belongs to its run", self.then)
        return self


@dataclass(frozen=True, config=_strict)
class Wait:
    """Go on when a signal arrives for the run.

    Args:
        name: the signal's name.
        then: the node that goes on, with the outputs plus ``signal``.
        timeout: seconds to wait at most.
        on_timeout: the node that goes on instead when the time is over; without it the wait fails.
    """

    name: Annotated[str, Field(min_length=1, max_length=SIGNAL)]
    then: NodeName | Send = dataclasses.field(kw_only=True)
    timeout: Timeout | None = dataclasses.field(default=None, kw_only=True)
    on_timeout: NodeName | Send | None = dataclasses.field(default=None, kw_only=True)

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown(cls, data: Any) -> Any:
        return _known_fields(cls, data)

    @model_validator(mode="after")
    def _none_detached(self) -> Wait:
        _refuse_detached("what goes on after a Wait belongs to its run", self.then, self.on_timeout)
        return self


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SendItem(_Item):
    """``{"send": {…}}``."""

    send: Send


class GatherItem(_Item):
    """``{"gather": {…}}``."""

    gather: Gather


class WaitItem(_Item):
    """``{"wait": {…}}``."""

    wait: Wait


Item = NodeName | SendItem | GatherItem | WaitItem


def wrap(item: str | Send | Gather | Wait) -> Item:
    """From what an author returns to what travels."""
    match item:
        case Send():
            return SendItem(send=item)
        case Gather():
            return GatherItem(gather=item)
        case Wait():
            return WaitItem(wait=item)
        case _:
            return item


def unwrap(item: Item) -> Send | Gather | Wait:
    """From what travelled to what ``advance`` reads; a plain name becomes a ``Send`` of the outputs."""
    match item:
        case SendItem():
            return item.send
        case GatherItem():
            return item.gather
        case WaitItem():
            return item.wait
        case _:
            return _plain(item)


def as_send(item: str | Send) -> Send:
    """A plain name is a ``Send`` without inputs of its own."""
    return _plain(item) if isinstance(item, str) else item


@lru_cache(maxsize=1024)
def _plain(node: str) -> Send:
    """The ``Send`` that a plain name stands for, made and checked once: nearly every result has one."""
    return Send(node)


def nodes_of(item: Send | Gather | Wait) -> Iterator[str]:
    """The nodes that an item names, now or for later."""
    match item:
        case Send(node=node):
            yield node
        case Gather(sends=sends, then=then):
            yield from (send if isinstance(send, str) else send.node for send in (*sends, then))
        case Wait(then=then, on_timeout=on_timeout):
            yield from (as_send(send).node for send in (then, on_timeout) if send is not None)

"""What a worker knows of a node."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from flowkit.errors import InvalidNode
from flowkit.wire import bounds, durations, names, rates
from flowkit.worker.declared import Declared
from flowkit.worker.failure import message_of
from flowkit.worker.policy import Policy

Main = Callable[..., Awaitable[Any]]
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character: no UTF-8
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Definition:
    """A node, ready to be run.

    Args:
        name: the node's name, and that of its queue.
        main: the author's function; with ``model`` it takes one argument, else none.
        model: the pydantic model that the inputs have to fit.
        timeout: seconds for one attempt.
        queue_timeout: seconds that a task may wait for a worker.
        concurrency: how many of its tasks one worker runs at a time; None leaves it to the worker.
        policy: when to try again; None means one attempt.
        on_error: the node that receives what failed here.
        limit: how many of its tasks are out at a time, over all workers.
        rate: how many go out in a while, such as ``100/s``.
        key: the input by whose value ``limit`` and ``rate`` count apart.
        source: the file it came from, for messages.
        declared: what it says of its results.

    Raises:
        InvalidNode: a value that cannot be; the message says which.
    """

    name: str
    main: Main
    model: type[BaseModel] | None = None
    timeout: float | None = None
    queue_timeout: float | None = None
    concurrency: int | None = None
    policy: Policy | None = None
    on_error: str | None = None
    limit: int | None = None
    rate: str | None = None
    key: str | None = None
    source: str = ""
    declared: Declared = field(default_factory=Declared)

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.on_error is not None:
            check_name(self.on_error, f"node {self.name!r}: on_error")
        for option, seconds in (("timeout", self.timeout), ("queue_timeout", self.queue_timeout)):
            if seconds is not None and not durations.is_timeout(seconds):
                expected = f"seconds, a number over 0 and {durations.UP_TO}"
                raise InvalidNode(f"node {self.name!r}: {option}={bounds.shown(seconds)}; expected {expected}")
        for option, count in (("concurrency", self.concurrency), ("limit", self.limit)):
            if count is not None and not (type(count) is int and 1 <= count <= bounds.INT32):
                expected = f"a whole number from 1 to {bounds.INT32:,}"
                raise InvalidNode(f"node {self.name!r}: {option}={bounds.shown(count)}; expected {expected}")
        self._check_rate_and_key()

    def _check_rate_and_key(self) -> None:
        if self.rate is not None and not (isinstance(self.rate, str) and rates.is_rate(self.rate)):
            raise InvalidNode(f"node {self.name!r}: rate={bounds.shown(self.rate)}; expected {rates.EXPECTED}")
        if self.key is None:
            return
        if not isinstance(self.key, str) or not 0 < len(self.key) <= bounds.KEY or _SURROGATE.search(self.key):
            expected = f"the name of an input, up to {bounds.KEY} characters"
            raise InvalidNode(f"node {self.name!r}: key={bounds.shown(self.key)}; expected {expected}")
        if self.limit is None and self.rate is None:
            raise InvalidNode(
                f"node {self.name!r}: key={self.key!r} tells limits apart; expected limit or rate beside it"
            )


def check_name(name: object, what: str = "node") -> None:
    """Raise ``InvalidNode`` unless ``name`` may be the name of a node."""
    if not isinstance(name, str) or not names.is_node(name):
        raise InvalidNode(
            f"{what} {bounds.shown(name, 100)} cannot be the name of a node: expected {names.NODE_IN_WORDS}"
        )


def check_main(main: object, node: str) -> type[BaseModel] | None:
    """Check that ``main`` can be a node's main.

    Args:
        main: what the author registered.
        node: what the node is called in messages.

    Returns:
        the pydantic model of its one parameter; None when it takes none.

    Raises:
        InvalidNode: it is not async, or takes something that a worker cannot give.
    """
    called = getattr(main, "__qualname__", None) or repr(main)
    if inspect.isasyncgenfunction(main):
        raise InvalidNode(f"node {node!r}: {called} yields; main has to 'return (nodes, outputs, message)'")
    if not callable(main) or not _is_async(main):
        raise InvalidNode(f"node {node!r}: {called} is not async; write 'async def main():'")
    try:
        signature = inspect.signature(main, eval_str=True)
    except Exception as error:  # noqa: BLE001 - annotations are the author's code and may raise anything
        why = message_of(error)
        raise InvalidNode(f"node {node!r}: the annotations of {called} cannot be read: {why}") from None
    # What has a default is the author's own affair, unless it asks for typed inputs.
    asked = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind not in _VARIADIC and (parameter.default is parameter.empty or _is_model(parameter.annotation))
    ]
    if not asked:
        return None
    if len(asked) > 1:
        taken = ", ".join(parameter.name for parameter in asked)
        raise InvalidNode(f"node {node!r}: {called} takes {taken}; expected at most one parameter, a pydantic model")
    if asked[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise InvalidNode(f"node {node!r}: {called} takes {asked[0].name} by keyword only; leave out the '*'")
    model = asked[0].annotation
    if not _is_model(model):
        raise InvalidNode(
            f"node {node!r}: parameter {asked[0].name} of {called} has no pydantic model as its annotation; "
            f"write '{asked[0].name}: YourModel', or take none and call node.get_inputs()"
        )
    assert isinstance(model, type)
    return model


def _is_async(main: object) -> bool:
    return inspect.iscoroutinefunction(main) or inspect.iscoroutinefunction(getattr(type(main), "__call__", None))  # noqa: B004 - whether it is async, not whether it is there


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)

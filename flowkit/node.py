"""``Node``: what an author holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from uuid import UUID

from flowkit.errors import FlowKitError, InvalidNode, UsageError
from flowkit.wire.messages import Task
from flowkit.worker.current import copy_inputs, current
from flowkit.worker.declared import declared, names_of
from flowkit.worker.definition import Definition, Main, check_main, check_name
from flowkit.worker.policy import Decide, Policy

M = TypeVar("M", bound=Main)

hosted: ContextVar[bool] = ContextVar("flowkit_hosted", default=False)
"""Whether a worker is importing node files: ``Node()`` then belongs to it and leaves ``sys.argv`` alone."""

MADE = "__flowkit_nodes__"
"""The variable of a module that lists the Nodes made while a worker imported it."""


class Node:
    """A named worker: takes a task, runs its main, names who goes on.

    Args:
        name: what it is called; the file's name when left out.
        timeout: seconds for one attempt.
        concurrency: how many of its tasks one worker runs at a time.
        retry: tenacity's ``retry_…``: which failures are tried again. Only ``stop`` or ``wait`` given: any exception.
        stop: tenacity's ``stop_…``: when to give up. Left out beside one of the others: after three attempts.
        wait: tenacity's ``wait_…``: seconds before the next attempt.
        on_error: name of the node that receives ``{"error": …, "inputs": …}`` in a failed task's place.
        queue_timeout: seconds that a task may wait for a worker.
        limit: how many of its tasks are out at a time, over all workers.
        rate: how many of its tasks go out in a while, over all workers, such as ``"100/s"`` or ``"5/min"``.
        key: the input by whose value ``limit`` and ``rate`` count apart, such as ``"customer_id"``.
        next: names of nodes that may follow by ``Send``, ``Gather`` and ``Wait``, which the annotation of main
            cannot tell. For ``flowkit check`` and ``flowkit graph``; nothing is enforced.

    Raises:
        InvalidNode: a value that cannot be.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        retry: Decide | None = None,
        stop: Decide | None = None,
        wait: Decide | None = None,
        on_error: str | None = None,
        queue_timeout: float | None = None,
        limit: int | None = None,
        rate: str | None = None,
        key: str | None = None,
        next: Iterable[str] | None = None,  # noqa: A002 - the word of the wire
    ) -> None:
        if name is not None:
            check_name(name)
        self._name, self._hosted = name, hosted.get()
        caller = sys._getframe(1)  # noqa: SLF001 - the author's
        # A function of another file, such as a helper's, makes it for the file that is being imported.
        module = (_imported_module(caller) if self._hosted else None) or caller.f_globals
        self._source = str(module.get("__file__", ""))
        self._main: Main | None = None
        policy = Policy.of(retry, stop, wait, node=self.name)
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "queue_timeout": queue_timeout,
            "concurrency": concurrency,
            "policy": policy,
            "on_error": on_error,
            "limit": limit,
            "rate": rate,
            "key": key,
        }
        self._next = names_of(next, self.name)
        if self._hosted:
            module.setdefault(MADE, []).append(self)

    @property
    def name(self) -> str:
        """Its name; the file's when it was given none."""
        return self._name or Path(self._source).stem or "node"

    @property
    def source(self) -> str:
        """The file that made it."""
        return self._source

    @property
    def has_main(self) -> bool:
        """Whether a main is registered."""
        return self._main is not None

    @property
    def definition(self) -> Definition:
        """What a worker knows of it.

        Raises:
            InvalidNode: it has no main, or a value that cannot be.
        """
        return self.define(self.name)

    def define(self, name: str) -> Definition:
        """Its definition under a name that its file was asked for; a name of its own comes first."""
        name = self._name or name
        if self._main is None:
            raise InvalidNode(
                f"node {name!r}: {self._source} registers no main; write @node.main above it, "
                "or call node.register_main(main)"
            )
        model = check_main(self._main, name)
        returns = declared(self._main, self._next, name)
        return Definition(name, self._main, model, source=self._source, declared=returns, **self._options)

    def register_main(self, main: Main) -> None:
        """Say what it runs.

        Args:
            main: an ``async def`` without parameters, or with one that is annotated with a pydantic model; it returns
                ``(nodes, outputs, message)``.

        Raises:
            InvalidNode: it is not async, or takes something else.
        """
        try:
            check_main(main, self.name)
        except InvalidNode as error:
            if self._hosted or not self._is_script:
                raise
            from flowkit import oneshot

            raise SystemExit(oneshot.complain(error)) from None
        if self._main is not None:
            raise InvalidNode(f"node {self.name!r} has a main already; a file may have several Nodes, each with a name")
        self._main = main

    def main(self, function: M) -> M:
        """``register_main`` as a decorator."""
        self.register_main(function)
        return function

    def get_inputs(self) -> dict[str, Any]:
        """The inputs of the task now running in this context: a fresh copy, to be changed as one likes."""
        return copy_inputs(self._task("get_inputs"))

    def get_id(self) -> UUID:
        """The id of the task now running in this context.

        It stays the same when the task is delivered again or retried, so it serves as an idempotency key.
        """
        return self._task("get_id").task_id

    def run(self) -> None:
        """Run this file's one task when it was called as a script; under a worker return at once.

        Raises:
            SystemExit: 1 when main failed, 2 on wrong arguments, 3 when the broker cannot be reached.
        """
        caller = sys._getframe(1)  # noqa: SLF001 - an import never runs a node, whoever imports
        if self._hosted or _is_importing(caller):
            return
        from flowkit import oneshot

        try:
            arguments = oneshot.parse(sys.argv)
            if self._name not in (None, arguments.node):
                if arguments.node in oneshot.names_in(caller.f_globals, Node):
                    return  # another Node of this file was meant
                raise UsageError(f"this file has no node {arguments.node!r}; it has {self._name!r}")
            code = oneshot.run(self.define(arguments.node), arguments)
        except KeyboardInterrupt:  # before main began
            code = 130
        except FlowKitError as error:
            code = oneshot.complain(error)
        if code:
            raise SystemExit(code)

    @property
    def _is_script(self) -> bool:
        return getattr(sys.modules["__main__"], "__file__", None) == self._source

    def _task(self, asked: str) -> Task:
        running = current.get()
        if running is not None:
            return running.task
        if self._hosted or not self._is_script:
            raise UsageError(f"node {self.name!r}: {asked}() is for main, while a task runs; there is none here")
        from flowkit import oneshot

        # A script may look at its inputs before it runs.
        try:
            return oneshot.parse(sys.argv).task
        except UsageError as error:
            raise SystemExit(oneshot.complain(error)) from None


def _imported_module(frame: FrameType) -> dict[str, Any] | None:
    """The globals of the innermost module in whose body this frame runs; None in a thread of its own."""
    inner: FrameType | None = frame
    while inner is not None:
        if inner.f_code.co_name == "<module>":
            return inner.f_globals
        inner = inner.f_back
    return None


def _is_importing(frame: FrameType) -> bool:
    """Whether this frame is a part of the import of a module, as in a child that ``multiprocessing`` spawned."""
    module = _imported_module(frame)
    return module is not None and module.get("__name__") != "__main__"

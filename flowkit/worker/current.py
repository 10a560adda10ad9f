"""The task that is running in this context."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from flowkit.wire.messages import Object, Task


class Sink(Protocol):
    """Where the lines go that a node logs."""

    def write(
        self, task: Task | None, level: str, message: str, context: object = None, exception: str | None = None
    ) -> None:
        """Take one line, from any thread, without waiting and without raising."""

    @property
    def crowded(self) -> bool:
        """Whether whoever writes should let others run."""

    async def flush(self, timeout: float) -> None:
        """Wait until what was written has left this process, for ``timeout`` seconds at most."""


@dataclass(frozen=True, slots=True)
class Current:
    """A running task, and where its lines go."""

    task: Task
    sink: Sink


current: ContextVar[Current | None] = ContextVar("flowkit_current", default=None)


def copy_inputs(task: Task) -> Object:
    """The task's inputs as a fresh copy, which the author may change."""
    copied: Object = _copy(task.inputs)
    return copied


def _copy(value: Any) -> Any:
    # The value came from JSON: no cycles and no other types, so that a tenth of deepcopy's work is enough.
    if type(value) is dict:
        return {key: _copy(inner) for key, inner in value.items()}
    if type(value) is list:
        return [_copy(inner) for inner in value]
    return value

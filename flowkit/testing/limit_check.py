"""Whether more mains of a limited node run at once than its limit allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from flowkit.errors import Unreadable
from flowkit.flow import slots
from flowkit.flow.slots import NodeLimit
from flowkit.testing.life import Life
from flowkit.wire import messages as wire
from flowkit.worker.definition import Definition

Attempt = tuple[str, UUID, int]  # run, task, number


class _Execution(NamedTuple):
    life: Life
    slot: str
    attempt: Attempt
    repeated: bool  # somebody had published a result of this attempt before


class LimitCheck:
    """Counts the attempts of each slot that run in living processes, at each beginning of a main.

    An attempt may run twice (at least once), and counts once. It does not count when another process has published a
    result of it, nor when anybody had done so before this execution began: who runs it then does so in vain.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._running: list[_Execution] = []
        self._answered: defaultdict[Attempt, set[Life]] = defaultdict(set)  # by whom

    @contextmanager
    def executing(self, life: Life, definition: Definition, task: wire.Task) -> Iterator[None]:
        """A main runs in this block."""
        if definition.limit is None:
            yield
            return
        limit = NodeLimit(definition.limit, None, definition.key)
        slot = slots.slot(task.node, limit, lambda: task.inputs)
        attempt = (task.run_id, task.task_id, task.attempt)
        execution = _Execution(life, slot, attempt, repeated=attempt in self._answered)
        self._running.append(execution)
        at_once = {one.attempt for one in self._running if one.slot == slot and self._counts(one)}
        if len(at_once) > definition.limit:
            which = ", ".join(f"{run_id} attempt {number}" for run_id, _, number in sorted(at_once))
            self.problems.append(
                f"{len(at_once)} tasks of {slot} ran at once, its limit is {definition.limit}: {which}"
            )
        try:
            yield
        finally:
            self._running.remove(execution)

    def _counts(self, execution: _Execution) -> bool:
        answered = self._answered.get(execution.attempt, set())
        return not execution.life.dead and not execution.repeated and answered <= {execution.life}

    def note_results(self, life: Life, body: bytes) -> None:
        """A process is about to publish results."""
        try:
            results = wire.decode_many(wire.Result, body)
        except Unreadable:
            return
        for result in results:
            if result.status is not wire.Status.STARTED and result.attempt is not None:
                self._answered[result.run_id, result.task_id, result.attempt].add(life)

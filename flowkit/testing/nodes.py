"""The nodes of a simulation: found, and recorded while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from flowkit import loading
from flowkit.errors import UsageError
from flowkit.node import Node
from flowkit.testing.life import MORTAL, Life
from flowkit.testing.limit_check import LimitCheck
from flowkit.worker.current import current
from flowkit.worker.definition import Definition


@dataclass(eq=False)
class Call:
    """One call of a node's main.

    Args:
        node: its name.
        inputs: what it was given.
        run_id: of its run.
        task_id: what ``node.get_id()`` gives.
        attempt: from 1 on; a retry is the next one.
        at: when it began.
        returned: ``(nodes, outputs, message)``; None when it raised, or its worker died over it.
        error: what it raised.
    """

    node: str
    inputs: dict[str, Any]
    run_id: str
    task_id: UUID
    attempt: int
    at: datetime
    returned: tuple[Any, ...] | None = None
    error: BaseException | None = None

    @property
    def outputs(self) -> Any:
        """The second of what it returned."""
        return None if self.returned is None else self.returned[1]


def find(given: Iterable[Node | Path | str]) -> dict[str, Definition]:
    """The definitions of nodes, node files and folders of them, by name; of two with one name the later one counts.

    Raises:
        UsageError: a file or folder is not there, or holds something that is no node.
    """
    found: dict[str, Definition] = {}
    for one in given:
        definitions = [one.definition] if isinstance(one, Node) else _at(Path(one))
        found |= {definition.name: definition for definition in definitions}
    if not found:
        raise UsageError("a simulation needs nodes: Simulation(node, …), Simulation('folder') or Simulation('file.py')")
    return found


def _at(path: Path) -> Iterable[Definition]:
    if path.suffix == ".py":
        return loading.load(str(path), path.parent)
    folder = loading.load_all(path)
    for failure in folder.failures.values():
        raise failure
    return folder.definitions.values()


def recorded(
    definition: Definition, life: Life, calls: list[Call], clock: Callable[[], float], limits: LimitCheck
) -> Definition:
    """The same node; each call of its main is a step of this life, and added to ``calls``."""

    async def main(*arguments: Any) -> Any:
        running = current.get()
        assert running is not None, "a worker runs a main as the current task of its context"
        task = running.task
        await life.step(f"begin {task.node}", MORTAL)
        call = Call(
            task.node, dict(task.inputs), task.run_id, task.task_id, task.attempt, datetime.fromtimestamp(clock(), UTC)
        )
        calls.append(call)
        try:
            with limits.executing(life, definition, task):
                returned = await definition.main(*arguments)
        except BaseException as error:
            call.error = error
            raise
        call.returned = returned if isinstance(returned, tuple) else (returned,)
        await life.step(f"end {task.node}", MORTAL)
        return returned

    return replace(definition, main=main)

"""The work that is asked of every system, and what a task does: it notes that it ran, and passes on its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.record import note

Payload = dict[str, Any]
AROUND = 50  # bytes of a payload beside its text


@dataclass(frozen=True)
class Work:
    """What to send.

    ``kind``: ``chain`` (each task is followed by the next one), ``nothing`` (single tasks), ``chatty`` (single tasks
    that log ten lines), ``wide`` (a task that runs ``width`` tasks side by side, and one after all of them).

    Args:
        kind: see above.
        count: how many of them.
        steps: tasks of a chain.
        size: bytes of a payload.
        width: tasks side by side.
        first: number of the first one.
        one_by_one: send the next when the one before has ended, and note when each is sent.
    """

    kind: str
    count: int
    steps: int = 1
    size: int = 200
    width: int = 0
    first: int = 0
    one_by_one: bool = False

    @property
    def executions(self) -> int:
        """Tasks that are executed when all is done."""
        return self.count * (self.width + 2 if self.kind == "wide" else self.steps)

    def payloads(self) -> list[Payload]:
        """What the first tasks are given."""
        text = "x" * max(0, self.size - AROUND)
        return [
            {"number": self.first + number, "step": 1, "steps": self.steps, "width": self.width, "text": text}
            for number in range(self.count)
        ]


def passed_on(payload: Payload) -> Payload:
    """Note this step; returns what the next one is given."""
    note(payload["number"], payload["step"])
    return {**payload, "step": payload["step"] + 1}


def noted(number: int, step: int) -> None:
    """Note this step and return nothing."""
    note(number, step)

"""Log lines of a task on stderr, where no broker takes them."""

from __future__ import annotations

import sys
import time

from flowkit.wire.messages import Task, rfc3339
from flowkit.worker.logs import context_json


class Terminal:
    """Log lines on stderr."""

    crowded = False

    def write(
        self, task: Task | None, level: str, message: str, context: object = None, exception: str | None = None
    ) -> None:
        """Print one line."""
        said = f"{rfc3339(time.time())} {level} {task.node if task else '-'}: {message}"
        if context:
            said += f" {context_json(context).decode()}"
        print(said if exception is None else f"{said}\n{exception}", file=sys.stderr)  # noqa: T201

    async def flush(self, timeout: float) -> None:
        """Nothing waits."""

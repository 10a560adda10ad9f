"""Cancelled attempts that workers may have: who is told, and how long they count in the limits of their nodes.

A cancelled task is over for its run at once, and for its worker when its main has ended. An attempt of a limited node
counts in its slot until then: until any result of it arrives, or nobody has it any more.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.flow.changes import Tell
from flowkit.flow.events import AttemptsCancelled
from flowkit.wire import messages as wire

TOGETHER = 500  # attempts in one message
LONGEST = 20  # times the silence after which a message that may be lost is given up, though its queue is never empty


def cancelled(event: AttemptsCancelled) -> Iterator[Tell]:
    """All workers are told at once. Whoever misses it is told again when he announces the task."""
    grace = {"grace": event.grace} if event.grace else {}
    for begin in range(0, len(event.attempts), TOGETHER):
        (task_id, attempt), *others = event.attempts[begin : begin + TOGETHER]
        rest = {"others": tuple(wire.TaskAttempt(*other) for other in others)} if others else {}
        yield Tell(wire.Control(kind="cancel", run_id=event.run_id, task_id=task_id, attempt=attempt, **rest, **grace))


def is_gone(ready: int, consumers: int, unheard: float, silence: float, queue_timeout: float | None = None) -> bool:
    """Whether nobody can have a cancelled attempt that no worker has announced for ``silence`` seconds.

    A queue is first in, first out: while its message waits there, what is let out in its place would wait behind it,
    so nothing is gained by giving it up. Only what tasks of other slots may hide is given up at last, and what every
    worker refuses that takes it: what waits for the slot may have to fail in time where no worker is alive.

    Args:
        ready: messages in the queue of its node; 0 when there is no such queue.
        consumers: of that queue.
        unheard: seconds since it was cancelled, or was announced last.
        silence: seconds after which a worker that was not heard of counts as gone.
        queue_timeout: seconds after it was sent from which on a worker refuses its message; None when it does not.
    """
    if unheard < silence:
        return False
    is_refused = queue_timeout is not None and unheard >= queue_timeout + silence
    return ready == 0 or is_refused or (consumers > 0 and unheard >= LONGEST * silence)

"""What this process has taken and not yet answered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from flowkit.broker.protocol import Consumer, Delivery
from flowkit.wire.messages import Task
from flowkit.worker.definition import Definition
from flowkit.worker.report import Report
from flowkit.worker.stage import Job

Key = tuple[str, int, int]
_REMEMBERED = 1_000
_CANCELLED = 20_000  # twice the sends of the largest Gather


@dataclass(eq=False, slots=True)
class Execution:
    """One task at one attempt, from its delivery to the confirm of its result.

    Args:
        key: what tells it from others.
        task: what to do.
        definition: who does it.
        suspect: it was delivered several times before, and may be what killed those processes.
        traceparent: of its message, passed on with its result.

    Which messages have brought it is remembered beside their deliveries. The same message again, after a lost
    connection, comes from a broker that still has all it ever confirmed. But another message of the same task may come
    from one that was wiped, and whatever was confirmed before that is gone.
    """

    key: Key
    task: Task
    definition: Definition
    suspect: bool = False
    traceparent: str | None = None
    deliveries: list[tuple[Consumer, Delivery]] = field(default_factory=list)  # several after a reconnect
    messages: set[str | None] = field(default_factory=set)  # their ids, which each publishing makes anew
    taken: float = 0.0  # when it was delivered, by the loop's clock
    since: float | None = None  # when its turn came, in Unix seconds
    begun: float = 0.0  # the same, by the loop's clock
    job: Job | None = None  # its main, once it has begun
    cancelled: bool = False  # this worker has cancelled its main; known before the main is
    report: Report | None = None  # what its main came to
    stopping: bool = False  # the coordinator has cancelled it, its main has not ended, and nothing was reported yet
    reported: bool = False  # its one report is on its way, or it was put back: nothing more is to be said
    grace: asyncio.TimerHandle | None = None  # it was cancelled, and may go on until then

    def came(self, consumer: Consumer, delivery: Delivery) -> None:
        """A message has brought it: the first one, or one more."""
        self.deliveries.append((consumer, delivery))
        self.messages.add(delivery.message_id)

    def answered(self, messages: Collection[str | None]) -> list[tuple[Consumer, Delivery]]:
        """These messages are answered: gives their deliveries, and keeps those of others."""
        came = self.deliveries
        self.deliveries = [one for one in came if one[1].message_id not in messages]
        return [one for one in came if one[1].message_id in messages]


def key_of(task: Task) -> Key:
    """What tells an execution from others: the same task at a later attempt is another one."""
    return (task.run_id, task.task_id.int, task.attempt)  # a UUID hashes and compares in Python, its number does not


class Taken:
    """The executions of this process, and the last ones it has answered."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Execution] = {}
        self._answered: OrderedDict[Key, set[str | None]] = OrderedDict()  # and the messages that were
        self._cancelled: OrderedDict[Key, None] = OrderedDict()  # attempts whose messages may come later
        self._empty = asyncio.Event()
        self._empty.set()

    def __iter__(self) -> Iterator[Execution]:
        return iter(list(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: Key) -> Execution | None:
        """The execution of this very attempt, if it is here."""
        return self._by_key.get(key)

    def add(self, execution: Execution) -> None:
        """It was delivered."""
        self._by_key[execution.key] = execution
        self._empty.clear()

    def drop(self, execution: Execution) -> None:
        """It went back unanswered, or was answered."""
        self._by_key.pop(execution.key, None)
        if not self._by_key:
            self._empty.set()

    def answered(self, execution: Execution) -> None:
        """The result is confirmed: a redelivery of the same message would be one whose acknowledgement was lost."""
        self.drop(execution)
        self._answered[execution.key] = execution.messages
        if len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)

    def was_answered(self, key: Key, message: str | None) -> bool:
        """Whether a final result of this very attempt was confirmed lately, to this very message."""
        return message in self._answered.get(key, ())

    def cancel(self, key: Key) -> None:
        """This attempt was cancelled: a message of it that comes later is not executed."""
        self._cancelled[key] = None
        self._cancelled.move_to_end(key)
        if len(self._cancelled) > _CANCELLED:
            self._cancelled.popitem(last=False)

    def was_cancelled(self, key: Key) -> bool:
        """Whether this attempt was cancelled lately. Whoever sends the task again sends another attempt."""
        return key in self._cancelled

    async def none_left(self) -> None:
        """Return when everything taken is answered."""
        await self._empty.wait()

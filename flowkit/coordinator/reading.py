"""From a delivery to events: the one place where the coordinator decodes messages."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from flowkit.broker.protocol import Delivery
from flowkit.errors import Unreadable
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.wire import codec, names
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Message:
    """What was in a delivery: what happened, and the parts of an array that nobody can read."""

    events: list[Event] = field(default_factory=list)
    scraps: list[tuple[Unreadable, bytes]] = field(default_factory=list)  # why, and the part
    replay: wire.Command | None = None  # it is about dead letters, and about no run


class _Envelope(BaseModel):
    """The least that names a task: enough to let it fail when the rest of a result is wrong."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: UUID
    run_id: names.RunId


class Reader:
    """Reads what arrives in the queues of one topology."""

    def __init__(self, topology: Topology) -> None:
        self._starts = topology.starts.name
        self._results = topology.results.name
        self._commands = topology.commands.name
        self._tasks = topology.name("tasks", "")

    def read(self, delivery: Delivery) -> Message:
        """The events of a start, results or command message.

        Raises:
            Unreadable: nothing of it can be decoded.
        """
        return self._read(delivery, delivery.queue)

    def read_dead(self, delivery: Delivery) -> Message:
        """The events of a message that its queue gave up; the routing key is that queue. A task counts as returned."""
        if delivery.key.startswith(self._tasks):
            task = wire.decode(wire.Task, delivery.body)
            if delivery.key != self._tasks + task.node:
                raise Unreadable("wrong-node", f"a task of node {task.node!r} in queue {delivery.key!r}")
            returned = wire.Result(
                task_id=task.task_id, run_id=task.run_id, attempt=task.attempt, status=wire.Status.RETURNED
            )
            return Message([Reported(returned)])
        message = self._read(delivery, delivery.key)
        if message.replay is not None:
            raise Unreadable("given-up", "its queue gave this replay up; ask for it again")
        return message

    def _read(self, delivery: Delivery, queue: str) -> Message:
        if queue == self._starts:
            start = wire.decode(wire.Start, delivery.body)
            run_id = start.run_id or _run_id(delivery.message_id)
            return Message([Started(run_id, start.model_copy(update={"run_id": run_id}), _traceparent(delivery))])
        if queue == self._results:
            return _results(delivery.body)
        if queue == self._commands:
            command = wire.decode(wire.Command, delivery.body)
            if command.kind is wire.CommandKind.REPLAY:
                return Message(replay=command)
            if command.run_id is None:
                raise Unreadable("invalid", f"run_id: a {command.kind} command names its run")
            return Message([Commanded(command)])
        raise Unreadable("unexpected-queue", f"nothing is known of messages of queue {queue!r}")


def _traceparent(delivery: Delivery) -> str | None:
    """The header as https://www.w3.org/TR/trace-context/ has it; anything else would only confuse those behind us."""
    value = delivery.headers.get("traceparent")
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None


def _run_id(message_id: str | None) -> str:
    """A start without a run id that is delivered again keeps its message id, so that gives the same run."""
    if message_id is None:
        return uuid4().hex
    return UUID(bytes=hashlib.sha256(message_id.encode()).digest()[:16]).hex


def _results(body: bytes) -> Message:
    try:
        return Message([Reported(result) for result in wire.decode_many(wire.Result, body)])
    except Unreadable:
        value = codec.loads(body)
        if not isinstance(value, list):
            return Message([Reported(_lenient(value))])
    message = Message()
    for part in value:
        try:
            message.events.append(Reported(_lenient(part)))
        except Unreadable as error:
            message.scraps.append((error, codec.dumps(part)))
    return message


def _lenient(part: object) -> wire.Result:
    """A result that does not fit the contract but names its task fails that task, and says why."""
    raw = codec.dumps(part)
    try:
        return wire.decode(wire.Result, raw)
    except Unreadable as error:
        try:
            envelope = _Envelope.model_validate(part)
        except ValidationError:
            raise error from None
        problem = wire.Error(type="InvalidResult", message=f"the result does not fit the contract: {error.detail}")
        return wire.Result(task_id=envelope.task_id, run_id=envelope.run_id, status=wire.Status.FAILED, error=problem)

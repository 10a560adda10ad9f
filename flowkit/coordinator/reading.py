"""From a delivery to events: the one place where the coordinator decodes messages."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from flowkit.broker.protocol import Delivery
from flowkit.errors import Unreadable
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.wire import codec, exact, names
from flowkit.wire import messages as wire
from flowkit.wire.access import Logins
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What was in a delivery: what happened, and the parts of an array that nobody can read."""

    events: list[Event] = field(default_factory=list)
    scraps: list[tuple[Unreadable, bytes]] = field(default_factory=list)  # why, and the part
    replay: wire.Command | None = None  # it is about dead letters, and about no run


class _Envelope(BaseModel):
    """The least that names a task: enough to let it fail when the rest of a message is wrong."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: UUID
    run_id: names.RunId


class _TaskEnvelope(_Envelope):
    """The same of a task message."""

    node: names.NodeName
    attempt: wire.Attempt = 1


class Reader:
    """Reads what arrives in the queues of one topology.

    Args:
        topology: the names.
        logins: who may answer for which nodes.
    """

    def __init__(self, topology: Topology, logins: Logins | None = None) -> None:
        self._logins = logins or Logins()
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
        """The events of a message that its queue gave up; the routing key is that queue.

        A task counts as returned; one that no worker can read has failed.
        """
        if delivery.key.startswith(self._tasks):
            return _given_up(delivery, delivery.key.removeprefix(self._tasks))
        message = self._read(delivery, delivery.key)
        if message.replay is not None:
            raise Unreadable("given-up", "its queue gave this replay up; ask for it again")
        return message

    def _read(self, delivery: Delivery, queue: str) -> Message:
        if queue == self._starts:
            start = wire.decode(wire.Start, delivery.body)
            if _may_be_deep(delivery.body):
                _check_depth(start.inputs, "inputs")
            run_id = start.run_id or _run_id(delivery.message_id)
            if delivery.redelivered and start.run_id is None and delivery.message_id is None:
                _warn_of_second_run(start.node, run_id)
            return Message([Started(run_id, start.model_copy(update={"run_id": run_id}), delivery.traceparent)])
        if queue == self._results:
            return _results(delivery.body, self._logins.answers_for(delivery.user_id) if self._logins else None)
        if queue == self._commands:
            command = wire.decode(wire.Command, delivery.body)
            if _may_be_deep(delivery.body):
                _check_depth(command.input, "input")
            if command.kind is wire.CommandKind.REPLAY:
                return Message(replay=command)
            if command.run_id is None:
                raise Unreadable("invalid", f"run_id: a {command.kind} command names its run")
            return Message([Commanded(command)])
        raise Unreadable("unexpected-queue", f"nothing is known of messages of queue {queue!r}")


def _run_id(message_id: str | None) -> str:
    """A start without a run id that is delivered again keeps its message id, so that gives the same run.

    Without either, nothing tells a message that is delivered again from another one of the same content, which is to
    begin another run. To lose a start would be worse than to begin it twice.
    """
    if message_id is None:
        return uuid4().hex
    return UUID(bytes=hashlib.sha256(message_id.encode()).digest()[:16]).hex


def _warn_of_second_run(node: str, run_id: str) -> None:
    logger.warning(
        "a start of node %s that has neither run_id nor message_id was delivered again: if it was applied before, "
        "run %s is a second one", node, run_id, extra={"action": "unidentified_start", "run_id": run_id},
    )  # fmt: skip


def _may_be_deep(body: bytes) -> bool:
    """Whether it is worth a look: brackets are counted at memory speed, and once for all results of an array."""
    return body.count(b"{") + body.count(b"[") > codec.MAX_PAYLOAD_DEPTH


def _check_depth(value: Any, where: str) -> None:
    """Payloads leave room for what goes around them: messages, results of Gathers, the errors that handlers get."""
    if codec.deeper_than(value, codec.MAX_PAYLOAD_DEPTH):
        raise Unreadable("too-deep", f"{where}: nested deeper than {codec.MAX_PAYLOAD_DEPTH} levels")


def _given_up(delivery: Delivery, node: str) -> Message:
    """What becomes of a task whose message its queue gave up."""
    try:
        task: wire.Task | _TaskEnvelope = wire.decode(wire.Task, delivery.body)
    except Unreadable as error:
        if error.reason == "unknown-version":
            raise  # nothing is wrong with it: it can be replayed when all are of one version
        task = _envelope(_TaskEnvelope, codec.parse(delivery.body), error)
        why = wire.Error(type="UnreadableTask", message=f"no worker can read the message of this task: {error.detail}")
        words: dict[str, Any] = {"status": wire.Status.FAILED, "error": why, "message": f"{why.type}: {why.message}"}
        scraps = [(error, delivery.body)]
    else:
        words, scraps = {"status": wire.Status.RETURNED}, []
    if task.node != node:
        raise Unreadable("wrong-node", f"a task of node {task.node!r} in the queue of {node!r}")
    result = wire.Result(task_id=task.task_id, run_id=task.run_id, attempt=task.attempt, **words)
    return Message([Reported(result)], scraps)


def _results(body: bytes, answers_for: frozenset[str] | None) -> Message:
    """One result or an array of them: what is wrong with one of them does not concern the others."""
    try:
        results = wire.decode_many(wire.Result, body)
        if _may_be_deep(body):
            for result in results:
                _check_depth(result.outputs, "outputs")
    except Unreadable:
        value = codec.parse(body)
    else:
        return Message([Reported(result, answers_for) for result in results])
    if not isinstance(value, list):
        return Message([Reported(_lenient(value), answers_for)])
    message = Message()
    for part in wire.parts(value):
        try:
            message.events.append(Reported(_lenient(part), answers_for))
        except Unreadable as error:
            # What cannot be written again as it was is kept with all that stood around it.
            whole = codec.deeper_than(part, codec.MAX_DEPTH) or exact.flaw(part) is not None
            message.scraps.append((error, body if whole else codec.dumps(part)))
    return message


def _lenient(part: object) -> wire.Result:
    """A result that does not fit the contract but names its task fails that task, and says why."""
    try:
        return _strict(part)
    except Unreadable as error:
        if error.reason == "unknown-version":
            raise  # of a newer worker: kept as it is, to be replayed by a coordinator that can read it
        envelope = _envelope(_Envelope, part, error)
        problem = wire.Error(type="InvalidResult", message=f"the result does not fit the contract: {error.detail}")
        return wire.Result(task_id=envelope.task_id, run_id=envelope.run_id, status=wire.Status.FAILED, error=problem)


def _strict(part: object) -> wire.Result:
    result = wire.build(wire.Result, codec.checked(part))
    if codec.deeper_than(result.outputs, codec.MAX_PAYLOAD_DEPTH):
        raise Unreadable("too-deep", f"outputs: nested deeper than {codec.MAX_PAYLOAD_DEPTH} levels")
    return result


E = TypeVar("E", bound=_Envelope)


def _envelope(model: type[E], value: object, error: Unreadable) -> E:
    """Whose message it is; the given error when nobody can tell."""
    try:
        return model.model_validate(value)
    except ValidationError:
        raise error from None

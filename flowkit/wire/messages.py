"""Every message of the contract, as frozen models. Any language can be a worker: this is all it has to speak.

Times are RFC 3339 text in UTC on the wire (numbers, Unix seconds, are read too) and Unix seconds inside. Durations
are seconds. Unknown fields are ignored; a message of another major version than ``VERSION`` is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from flowkit.errors import Unreadable
from flowkit.wire import bounds, codec, rates
from flowkit.wire.bounds import ENTRIES, Count, Text, WorkerName
from flowkit.wire.durations import Duration, Timeout
from flowkit.wire.items import Item
from flowkit.wire.names import NodeName, RunId

VERSION = 1


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if as_written := _WRITTEN.fullmatch(value):
        whole, micros = as_written.groups()
        return _from_the_second(whole) + int(micros) / 1e6
    return _read(value)


# As `rfc3339` writes it, which is nearly all that is read: datetime would cost a result as much again.
_WRITTEN = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z", re.ASCII)


def _read(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_from_the_second = lru_cache(maxsize=64)(_read)  # most of what is read in a while is of a few seconds


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 text in UTC, such as ``2026-01-31T12:00:00.250000Z``."""
    whole = math.floor(seconds)
    micros = round((seconds - whole) * 1e6)
    if micros == 1_000_000:
        whole, micros = whole + 1, 0
    return f"{_to_the_second(whole)}.{micros:06d}Z"


@lru_cache(maxsize=16)  # most of what is written in a while is of one second
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


Instant = Annotated[
    float,
    Field(ge=0, le=253402214399),  # the last but one day that datetime can write: it can in any time zone
    BeforeValidator(_seconds),  # behind the bounds: in front of them, pydantic would check those in Python
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Attempt = Count
Object = dict[str, Any]


class Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    TYPE: ClassVar[str]  # the AMQP property `type`

    v: int = VERSION

    def encode(self) -> bytes:
        """As JSON; fields that were not set are left out."""
        return codec.dumps(self.model_dump(exclude_unset=True) | {"v": self.v})


class Outcome(BaseModel):
    """How a task ended: what a one-shot script reports in ``finished``, and part of every result."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["succeeded", "failed"] = "succeeded"
    nodes: Annotated[tuple[Item, ...], Field(max_length=ENTRIES)] = ()
    outputs: Object = {}
    message: Text = ""
    error: Error | None = None


class Error(BaseModel):
    """Why a task failed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Annotated[str, Field(max_length=bounds.ERROR_TYPE)]
    message: Text = ""
    traceback: Text | None = None


class RunError(Error):
    """Why a run failed: the error of the task that failed last, and what that task had to handle."""

    node: NodeName | None = None
    task_id: UUID | None = None
    cause: RunError | None = None  # the failure that a handler (on_error) was given, when the handler failed too

    @model_serializer(mode="wrap")
    def _without_nulls(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that were added to the contract stand in a message only where they have a value."""
        added = ("node", "task_id", "cause")
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if value is not None or name not in added}


class Start(Message):
    """Begin a run. The least is ``{"node": …, "inputs": {…}}``."""

    TYPE = "flowkit.start"

    node: NodeName
    inputs: Object = {}
    run_id: RunId | None = None
    tags: bounds.Tags = {}
    delay: Duration = 0
    deadline: Timeout | None = None
    parent: RunId | None = None
    finished: Outcome | None = None


class Task(Message):
    """Run ``node`` once with ``inputs``; goes to the node's queue."""

    TYPE = "flowkit.task"

    task_id: UUID
    run_id: RunId
    node: NodeName
    inputs: Object = {}
    attempt: Attempt = 1
    tries: Attempt = 1
    first_started_at: Instant | None = None
    start_by: Instant | None = None


class Status(StrEnum):
    """What a result says of its task."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRY = "retry"  # run it again in `retry_in` seconds
    STARTED = "started"  # it is about to run, alone (process deaths are counted by these)
    RETURNED = "returned"  # given back unfinished: uses up no try


class Result(Message):
    """What became of a task. The least is task_id, run_id, nodes, outputs and message."""

    TYPE = "flowkit.result"

    task_id: UUID
    run_id: RunId
    nodes: Annotated[tuple[Item, ...], Field(max_length=ENTRIES)] = ()
    outputs: Object = {}
    message: Text = ""
    node: NodeName | None = None
    attempt: Attempt | None = None
    status: Status = Status.SUCCEEDED
    error: Error | None = None
    retry_in: Duration | None = None
    started_at: Instant | None = None
    finished_at: Instant | None = None
    worker: WorkerName | None = None

    @model_validator(mode="after")
    def _interim_needs_attempt(self) -> Result:
        if self.attempt is None and self.status in (Status.RETRY, Status.STARTED, Status.RETURNED):
            raise ValueError(f"a result with status {self.status} must carry attempt")
        return self


class Log(Message):
    """One line an author logged."""

    TYPE = "flowkit.log"

    ts: Instant
    level: Annotated[str, Field(max_length=bounds.LEVEL)]
    message: Text
    context: Object | None = None
    run_id: RunId | None = None
    task_id: UUID | None = None
    node: NodeName | None = None
    attempt: Attempt | None = None
    worker: WorkerName | None = None
    seq: Annotated[int, Field(ge=-bounds.INT64 - 1, le=bounds.INT64)] | None = None
    exception: Text | None = None


class CommandKind(StrEnum):
    """What can be asked of a coordinator."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    RERUN = "rerun"
    SIGNAL = "signal"
    REPLAY = "replay"


class Command(Message):
    """Ask the coordinator something about a run; applied once by its id."""

    TYPE = "flowkit.command"

    id: UUID
    kind: CommandKind
    run_id: RunId | None = None
    task_id: UUID | None = None
    name: bounds.SignalName | None = None
    input: Object | None = None
    grace: Duration | None = None  # cancel: seconds that running tasks have to come to their end
    new_run_id: RunId | None = None  # rerun: the id of the run that it makes
    letters: Annotated[  # replay: numbers of dead letters
        tuple[Annotated[int, Field(ge=1, le=bounds.INT64)], ...], Field(max_length=ENTRIES)
    ] = ()


Names = Annotated[tuple[Annotated[str, Field(max_length=bounds.NEXT)], ...], Field(max_length=ENTRIES)]


class NodeInfo(BaseModel):
    """What a worker says of one of its nodes. What it does not say is not declared."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: NodeName
    on_error: NodeName | None = None
    timeout: Timeout | None = None
    queue_timeout: Timeout | None = None
    limit: Count | None = None
    # The input by whose value limit and rate count apart
    key: Annotated[str, Field(min_length=1, max_length=bounds.KEY)] | None = None
    rate: Annotated[str, Field(pattern=rates.PATTERN)] | None = None
    schemas: Object | None = None  # JSON Schemas under `inputs` and `outputs`
    next: Names | None = None  # names that may follow
    plain: Names = ()  # those of them whose inputs are the outputs
    others: bool = False  # there may be others than `next` says


class Running(NamedTuple):
    """One task that a worker has taken and not answered. ``since`` None: it has not begun it."""

    task_id: UUID
    attempt: Attempt
    since: Instant | None
    run_id: RunId | None = None  # without it nobody can look the task up: no lease, and no word about its run


def _known_places(entry: Any) -> Any:
    """An entry without what a newer worker may say behind it, as unknown fields are ignored elsewhere."""
    return entry[: len(Running._fields)] if isinstance(entry, list | tuple) else entry


def _entry(entry: Running) -> list[Any]:
    said = [entry.task_id, entry.attempt, None if entry.since is None else rfc3339(entry.since)]
    return said if entry.run_id is None else [*said, entry.run_id]


class Worker(Message):
    """Announcement and heartbeat of a worker process, every 5 s."""

    TYPE = "flowkit.worker"

    worker: WorkerName
    version: Annotated[str, Field(max_length=bounds.VERSION)] = ""
    nodes: Annotated[tuple[NodeInfo, ...], Field(max_length=ENTRIES)] = ()
    running: Annotated[
        tuple[Annotated[Running, BeforeValidator(_known_places), PlainSerializer(_entry)], ...],
        Field(max_length=ENTRIES),
    ] = ()
    stopping: bool = False
    host: Annotated[str, Field(max_length=bounds.HOST)] | None = None
    pid: Annotated[int, Field(ge=0, le=bounds.INT64)] | None = None
    started_at: Instant | None = None  # when this process began to work
    # Of nodes with another number than one
    consumers: dict[NodeName, Annotated[int, Field(ge=0, le=bounds.INT32)]] = {}

    def consumers_of(self, node: str) -> int:
        """How many consumers of the queue of a node, which is one of its own, it has."""
        return self.consumers.get(node, 1)


class TaskAttempt(NamedTuple):
    """One attempt of a task of the run that the message names."""

    task_id: UUID
    attempt: Attempt


class Control(Message):
    """From the coordinator to all workers."""

    TYPE = "flowkit.control"

    kind: Literal["cancel", "paused", "leased"]
    run_id: RunId | None = None
    task_id: UUID | None = None
    attempt: Attempt | None = None
    worker: WorkerName | None = None
    grace: Duration | None = None
    # Further tasks of the run, beside `task_id` and `attempt`
    others: Annotated[tuple[TaskAttempt, ...], Field(max_length=bounds.OTHERS)] = ()


class RunEnded(Message):
    """Published when a run ends, and again when an ended run is started again."""

    TYPE = "flowkit.run"

    run_id: RunId
    node: NodeName
    status: Literal["succeeded", "failed", "cancelled", "conflict"]
    outputs: Object | None = None
    message: Text = ""
    error: RunError | None = None
    # Of the node and inputs that it began with (`value_fingerprint`)
    fingerprint: Annotated[str, Field(max_length=bounds.FINGERPRINT)] | None = None
    parent: RunId | None = None  # the run that began it: a rerun's source, a detached run's sender


REASON, DETAIL = "flowkit-reason", "flowkit-detail"  # headers of a dead letter: a short word, and what was wrong
REFUSED = "flowkit-refused"  # header of a conflict: the fingerprint of the start, or the rerun's id, that it answers


def fingerprint(start: Start) -> str:
    """What names one start message in a refusal: its node and inputs, as they are written."""
    return sha256(codec.dumps([start.node, start.inputs])).hexdigest()


def value_fingerprint(node: str, inputs: Object) -> str:
    """What tells runs of one id apart: the node and the inputs that they began with, compared as JSON values."""
    return sha256(codec.by_value([node, inputs])).hexdigest()


M = TypeVar("M", bound=Message)


def decode(model: type[M], body: bytes) -> M:
    """Read one message.

    Raises:
        Unreadable: it is no JSON, of another major version, or does not fit the contract.
    """
    return build(model, codec.loads(body))


def decode_many(model: type[M], body: bytes) -> list[M]:
    """Read one message or an array of them, as results and logs may be."""
    return [build(model, part) for part in parts(codec.loads(body))]


def parts(value: Any) -> list[Any]:
    """The messages of an array, or the one that is there.

    Raises:
        Unreadable: there are more than whoever reads them could look at in a while.
    """
    if not isinstance(value, list):
        return [value]
    if len(value) > bounds.PARTS:
        raise Unreadable("too-many", f"an array of {len(value):,} messages; at most {bounds.PARTS:,} may share one")
    return value


def decode_each(model: type[M], body: bytes) -> tuple[list[M], list[Unreadable]]:
    """Read one message or an array of them: what is wrong with one of them does not concern the others.

    Returns:
        those that can be read, and for each of the others why it cannot.

    Raises:
        Unreadable: it is no JSON, or holds too many.
    """
    try:
        return decode_many(model, body), []
    except Unreadable:
        value = codec.parse(body)
    good, bad = [], []
    for part in parts(value):
        try:
            good.append(build(model, codec.checked(part)))
        except Unreadable as error:
            bad.append(error)
    return good, bad


def encode_many(messages: list[M]) -> bytes:
    """One object for one message, an array for several."""
    return join([message.encode() for message in messages])


def join(bodies: Sequence[bytes]) -> bytes:
    """The same of messages that are encoded already."""
    return bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"


def build(model: type[M], value: Any) -> M:
    """A message from what its JSON says; ``Unreadable`` when it is of another version, or does not fit."""
    if not isinstance(value, dict):
        raise Unreadable("not-an-object", f"a {model.TYPE} message is a JSON object, got {type(value).__name__}")
    version = value.get("v", VERSION)
    if version != VERSION:
        theirs = bounds.cut(repr(version), 60)
        raise Unreadable("unknown-version", f"version {theirs}; this FlowKit reads version {VERSION}: upgrade it")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Unreadable("invalid", explain(error)) from None


def explain(error: ValidationError) -> str:
    """Pydantic's explanation on one line; it is short, whatever keys and values it is about."""
    parts = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        place = ".".join(bounds.cut(str(step), 100) for step in problem["loc"])
        said = bounds.cut(problem["msg"], 300)
        parts.append(f"{place}: {said}" if place else said)
    return "; ".join(parts)

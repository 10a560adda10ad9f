"""A node file as a script: ``python add.py input.json RUNNER_ID SELF_ADDR add`` runs one task and says how it went."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from flowkit import settings, streams
from flowkit.addresses import mask
from flowkit.broker import Broker, Outgoing, open_broker
from flowkit.broker.address import check
from flowkit.errors import FlowKitError, QueueFull, Unreachable, Unreadable, Unroutable, UsageError
from flowkit.wire import codec, names
from flowkit.wire.messages import Object, Outcome, Result, Start, Status, Task
from flowkit.wire.topology import Topology
from flowkit.worker import Definition, event_loop, worker_name
from flowkit.worker.execute import execute_apart
from flowkit.worker.interrupts import INTERRUPTED, Interrupts
from flowkit.worker.logs import Shipper
from flowkit.worker.process_exit import busy_threads, leave_if_busy
from flowkit.worker.records import capture
from flowkit.worker.signals import default_interrupt
from flowkit.worker.terminal import Terminal

CONNECT_TIMEOUT = 10  # seconds, for the broker and then for a queue of starts
_USAGE = "usage: python {} INPUT.json RUNNER_ID SELF_ADDR NODE   (SELF_ADDR: amqp://… or -)"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the script was called with.

    Args:
        node: the name of the node.
        inputs: its inputs.
        id: run id and task id.
        address: where logs and the result go; ``-`` is the terminal.
    """

    node: str
    inputs: Object
    id: UUID
    address: str

    @property
    def task(self) -> Task:
        """The one task there is."""
        return Task(task_id=self.id, run_id=str(self.id), node=self.node, inputs=self.inputs)


def parse(argv: list[str]) -> Arguments:
    """Read ``sys.argv``.

    Raises:
        UsageError: wrong arguments, or a file that is no JSON object.
    """
    if len(argv) != 5:
        raise UsageError(f"{len(argv) - 1} arguments, expected 4; {_USAGE.format(Path(argv[0]).name)}")
    _, file, runner_id, address, node = argv
    if not names.is_node(node):
        raise UsageError(f"NODE {node!r} cannot be the name of a node: expected {names.NODE}")
    try:
        runner = UUID(runner_id)
    except ValueError:
        raise UsageError(f"RUNNER_ID {runner_id!r} is no UUID, such as 123e4567-e89b-42d3-a456-426614174000") from None
    if address != "-":
        if not address.startswith(("amqp://", "amqps://")):
            raise UsageError(f"SELF_ADDR {mask(address)!r}: expected amqp://…, amqps://…, or - for the terminal")
        check(address)
    return Arguments(node, _inputs(Path(file)), runner, address)


def names_in(module: dict[str, Any], kind: type[Any]) -> list[str]:
    """The names of the Nodes in a module's globals."""
    return [value.name for value in module.values() if issubclass(type(value), kind)]


def complain(error: FlowKitError) -> int:
    """Say on stderr, in one line, why it cannot be; the exit code."""
    _say(f"error: {' '.join(str(error).split())}")
    return 3 if isinstance(error, Unreachable) else 2 if isinstance(error, UsageError) else 1


def run(definition: Definition, arguments: Arguments) -> int:
    """Run the task and report it; the exit code."""
    capture()
    logging.getLogger("flowkit").setLevel(logging.ERROR)  # a script says in one line what went wrong
    logging.getLogger(event_loop.__name__).setLevel(logging.WARNING)  # but not that a task beside main exits
    once = dataclasses.replace(definition, policy=None)  # nobody would come back for a second attempt
    if arguments.address == "-":
        main = _on_terminal(once, arguments.task)
    else:
        for text in settings.unknown_variables():
            _say(f"warning: {text}")
        configured = settings.read()
        broker = open_broker(_with_login(arguments.address, configured.broker_url), heartbeat=configured.heartbeat)
        main = _on_broker(once, arguments.task, broker, Topology(configured.namespace))
    with Interrupts(_say) as interrupts:
        try:
            code = interrupts.run(main)
        except KeyboardInterrupt:
            code = INTERRUPTED
            interrupts.wait_for_threads("interrupted")
    if busy_threads():  # as in any script the interpreter waits for them; Ctrl-C ends that without a traceback
        default_interrupt()
    if code:
        leave_if_busy(code, _say)
    return code


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is a script's own terminal


async def _on_terminal(definition: Definition, task: Task) -> int:
    sink = Terminal()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result alone, whatever main prints
        done = await execute_apart(task, definition, sink=sink, worker=worker_name())
    result = done.result
    if result.error is not None and result.error.traceback:
        sink.write(task, "ERROR", result.message, exception=result.error.traceback)
    shown = {"status": result.status, "nodes": [], "outputs": {}, "message": result.message}
    encoded = codec.loads(done.body)
    shown |= {key: encoded[key] for key in ("nodes", "outputs") if key in encoded}
    streams.escape_unencodable(sys.stdout)
    print(codec.dumps(shown).decode())  # noqa: T201
    return _exit_code(result)


async def _on_broker(definition: Definition, task: Task, broker: Broker, topology: Topology) -> int:
    try:
        await broker.connect(CONNECT_TIMEOUT)  # before main does anything that nobody would hear of
        await broker.declare((*topology.exchanges, topology.starts))
        worker = worker_name()
        shipper = Shipper(broker, topology, worker=worker)
        async with asyncio.TaskGroup() as group:
            shipping = group.create_task(shipper.run())
            done = await execute_apart(task, definition, sink=shipper, worker=worker)
            await shipper.flush()
            shipping.cancel()
        await _report(done.result, task, broker, topology)
    finally:
        await broker.close()
    if done.result.status is not Status.SUCCEEDED:
        print(f"{task.node} failed: {done.result.message}", file=sys.stderr)  # noqa: T201
    return _exit_code(done.result)


async def _report(result: Result, task: Task, broker: Broker, topology: Topology) -> None:
    """Publish a run whose first task is done; the workflow goes on from there."""
    outcome = Outcome(
        status="succeeded" if result.status is Status.SUCCEEDED else "failed",
        nodes=result.nodes,
        outputs=result.outputs,
        message=result.message,
        error=result.error,
    )
    start = Start(node=task.node, inputs=task.inputs, run_id=task.run_id, finished=outcome)
    message = Outgoing(
        topology.name("starts"), task.node, start.encode(), Start.TYPE, correlation_id=task.run_id, app_id=task.node
    )
    give_up = time.monotonic() + CONNECT_TIMEOUT
    while (error := (await broker.publish([message]))[0]) is not None:
        if not isinstance(error, Unroutable | QueueFull) or time.monotonic() > give_up:
            raise error
        await asyncio.sleep(0.2)  # a coordinator declares the queue, or makes room in it


def _inputs(file: Path) -> Object:
    try:
        value = codec.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; expected a file with a JSON object, the inputs") from None
    except Unreadable as error:
        raise UsageError(f"{file}: {error.detail}; expected a JSON object, the inputs") from None
    if not isinstance(value, dict):
        raise UsageError(f"{file}: holds {type(value).__name__}; expected a JSON object, the inputs")
    return value


def _with_login(address: str, configured: str) -> str:
    """The address with the user and password of the configured one, when it has none."""
    if "@" in urlsplit(address).netloc or not re.match("amqps?://", configured):
        return address
    check(configured)
    login = urlsplit(configured).netloc.rpartition("@")[0]
    return address.replace("://", f"://{login}@", 1) if login else address


def _exit_code(result: Result) -> int:
    return 0 if result.status is Status.SUCCEEDED else 1

"""The lines that nodes log, on their way to the log exchange: in batches, and never in a task's way."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.errors import NotSent, PublishError, QueueFull
from flowkit.wire import bounds, codec
from flowkit.wire.messages import VERSION, Log, Object, Task, rfc3339
from flowkit.wire.topology import Topology
from flowkit.worker.failure import capped

_log = logging.getLogger(__name__)
_BATCH_LINES = 500
_BATCH_BYTES = 1024 * 1024
_CONTEXT_BYTES = 64 * 1024
_REFUSALS = 5  # times that a batch is published to a queue that refuses it; the other queues of the exchange get each

Line = dict[str, Any]


class Shipper:
    """Takes lines from tasks and publishes them, one message per node and batch.

    A line that finds the buffer full is dropped and counted; the count is said in a line of its own as soon as there is
    room. ``seq`` is given when a line leaves, so that those that arrive are numbered without a gap.

    Args:
        broker: where to publish.
        topology: the names there.
        worker: the name of this process.
        linger: seconds to wait for more lines before a batch leaves.
        max_lines: lines that the buffer holds.
        max_bytes: bytes of text that the buffer holds.
        clock: Unix seconds.
    """

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        *,
        worker: str,
        linger: float = 0.05,
        max_lines: int = 10_000,
        max_bytes: int = 16 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker, self._exchange = broker, topology.name("logs")
        self._worker, self._linger, self._clock = worker, linger, clock
        self._max_lines, self._max_bytes = max_lines, max_bytes
        # Lines come from threads too; what follows is shared with them. A finalizer may log while its thread holds it.
        self._lock = threading.RLock()
        self._lines: deque[tuple[Line, int]] = deque()
        self._bytes = self._dropped = self._written = 0
        self._settled = self._seq = 0
        self._losing = False  # the last messages were given up
        self._awake = False  # whoever ships looks for lines, or has been told to: one call for many of them
        self._loop: asyncio.AbstractEventLoop | None = None
        self._some, self._hurry, self._progress = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @property
    def crowded(self) -> bool:
        """Whether the buffer is half full."""
        return len(self._lines) > self._max_lines // 2

    def write(
        self, task: Task | None, level: str, message: str, context: object = None, exception: str | None = None
    ) -> None:
        """Take one line, from any thread, without waiting and without raising."""
        line: Line = {"v": VERSION, "ts": rfc3339(self._clock()), "level": bounds.cut(text_of(level), bounds.LEVEL),
                      "message": capped(message)}  # fmt: skip
        size = 300 + len(line["message"])
        if context:
            raw = context_json(context)
            line["context"], size = codec.embed(raw), size + len(raw)
        if task is not None:
            line |= {"run_id": task.run_id, "task_id": task.task_id, "node": task.node, "attempt": task.attempt}
        if exception is not None:
            line["exception"], size = capped(exception), size + len(exception)
        with self._lock:
            if len(self._lines) >= self._max_lines or self._bytes + size > self._max_bytes:
                self._dropped += 1
                return
            self._lines.append((line, size))
            self._bytes += size
            self._written += 1
            asleep, self._awake = not self._awake, self._loop is not None
        if asleep:
            self._wake()

    def hurry(self) -> None:
        """Ship now what there is: a task has ended."""
        if self._lines:
            self._hurry.set()

    async def flush(self, timeout: float = 5) -> None:
        """Wait until what was written has left, for ``timeout`` seconds at most; from any thread with a loop."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.flush(timeout), self._loop))
            return
        target = self._written
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._settled < target:
                    self._hurry.set()
                    self._some.set()
                    await self._progress.wait()

    async def run(self) -> None:
        """Ship until cancelled."""
        self._loop = asyncio.get_running_loop()
        if self._lines:  # written before there was a loop to wake
            self._some.set()
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._linger):
                    await self._hurry.wait()
            self._some.clear()
            self._hurry.clear()
            while batch := self._take():
                await self._ship(batch)

    def _wake(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: a thread outlived it
                self._loop.call_soon_threadsafe(self._some.set)

    def _take(self) -> list[Line]:
        """The next lines, numbered; before them how many were dropped."""
        taken: list[Line] = []
        size = 0
        with self._lock:
            if self._dropped:
                count, self._dropped = self._dropped, 0
                self._written += 1
                said = f"{count:,} log lines dropped: they came faster than they could be sent"
                taken.append(
                    {"v": VERSION, "ts": rfc3339(self._clock()), "level": "WARNING", "message": said,
                     "context": {"dropped": count}}
                )  # fmt: skip
            while self._lines and len(taken) < _BATCH_LINES and size < _BATCH_BYTES:
                line, weight = self._lines.popleft()
                self._bytes -= weight
                size += weight
                taken.append(line)
            self._awake = bool(taken)  # as long as it finds some it looks again
        for line in taken:
            self._seq += 1
            line["worker"], line["seq"] = self._worker, self._seq
        return taken

    async def _ship(self, batch: list[Line]) -> None:
        by_node: dict[str | None, list[Line]] = {}
        for line in batch:
            by_node.setdefault(line.get("node"), []).append(line)
        waiting = [self._outgoing(node, lines) for node, lines in by_node.items()]
        pause, refusals = 0.1, 0
        lost: list[PublishError] = []
        while True:
            verdicts = await self._broker.publish(waiting)
            refusals += any(isinstance(error, QueueFull) for error in verdicts)
            transient = NotSent if refusals >= _REFUSALS else NotSent | QueueFull
            lost += [error for error in verdicts if error is not None and not isinstance(error, transient)]
            waiting = [one for one, error in zip(waiting, verdicts, strict=True) if isinstance(error, transient)]
            if not waiting:
                break
            # The link for logs has no signal of its own; meanwhile the buffer fills, and then drops and counts.
            await self._broker.wait_connected()
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)
        self._note_loss(lost)
        self._settled += len(batch)
        self._progress.set()
        self._progress = asyncio.Event()

    def _note_loss(self, errors: list[PublishError]) -> None:
        """Log why messages are given up, once until a batch passes."""
        if errors and not self._losing:
            _log.warning("log lines lost: %s", errors[0], extra={"action": "logs_lost"})
        self._losing = bool(errors)

    def _outgoing(self, node: str | None, lines: list[Line]) -> Outgoing:
        body = codec.dumps(lines[0] if len(lines) == 1 else lines)
        return Outgoing(self._exchange, node or "", body, Log.TYPE, durable=False, app_id=node)


def context_json(context: object) -> bytes:
    """A context as a JSON object, whatever the author put into it."""
    if not isinstance(context, dict):
        context = {"context": context}
    try:
        raw = codec.encode_object(context, "context")
    except Exception:  # noqa: BLE001 - no JSON, or an author's object that raises as it is read
        plain: Object = _plain(context, 0)
        raw = codec.dumps(plain)
    if len(raw) > _CONTEXT_BYTES:
        return codec.dumps({"left_out": f"context of {len(raw):,} bytes, over the limit of {_CONTEXT_BYTES:,}"})
    return raw


def _plain(value: Any, depth: int) -> Any:
    """JSON as far as it goes, and text for all the rest: a log line never fails because of what it says."""
    try:
        if isinstance(value, dict) and depth < 20:
            return {text_of(key): _plain(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset) and depth < 20:
            return [_plain(inner, depth + 1) for inner in value]
        codec.check(value, "")
    except Exception:  # noqa: BLE001 - as above
        return text_of(value)
    return value


def text_of(value: object) -> str:
    """A value as text, capped; its type where its ``str()`` raises."""
    try:
        return capped(value if isinstance(value, str) else str(value))
    except Exception:  # noqa: BLE001 - the author's __str__ may raise anything
        return f"({type(value).__name__})"

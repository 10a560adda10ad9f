"""A bounded, mixed load: a client that begins runs, remembers which were accepted, and looks at what came of each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from uuid import UUID, uuid4

from flowkit.client import Client
from flowkit.client.run import Run
from flowkit.errors import FlowKitError, Refused, RunFailed
from flowkit.wire.messages import Command, CommandKind
from tests.chaos import nodes

AGAIN = 3.0  # seconds between signals, where the fault may have taken one along


class Load:
    """Keeps some runs under way until it is told to stop.

    Args:
        client: whose runs they are.
        at_once: runs under way at a time.
        most: runs in all.
        work: seconds that a step takes.
        kinds: what runs do, in turn.
        signal_again: signal for as long as a run goes on, since the fault can take signals along that nobody has read.
        refusals: send commands for each run that have to be refused, and wait for the answer where a client gets any.
    """

    def __init__(
        self, client: Client, *, at_once: int = 12, most: int = 2_000, work: float = nodes.WORK,
        kinds: tuple[str, ...] = nodes.KINDS, signal_again: bool = False, refusals: bool = False,
    ) -> None:  # fmt: skip
        self._client, self._at_once, self._most, self._work = client, at_once, most, work
        self._kinds, self._signal_again, self._refusals = kinds, signal_again, refusals
        self._numbers = itertools.count()
        self._stopping = False
        self.accepted: dict[str, str] = {}  # run -> kind
        self.ended: dict[str, float] = {}  # run -> when, by the monotonic clock
        self.refused: set[UUID] = set()  # commands that have to be refused
        self.unanswered: dict[UUID, str] = {}  # of these: what the client has not heard the answer to, and its run
        self.wrong: list[str] = []
        self._running = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True

    async def finish(self, timeout: float) -> None:
        """Stop, and wait for all that was accepted to end."""
        self.stop()
        await asyncio.wait((self._running,), timeout=timeout)
        if not self._running.done():
            self._running.cancel()
            await asyncio.wait((self._running,))
        elif self._running.exception() is not None:
            raise self._running.exception()  # type: ignore[misc]

    async def cancel(self) -> None:
        """End now."""
        self._running.cancel()
        await asyncio.wait((self._running,))

    async def probe(self) -> float:
        """Begin one more run, and say how many seconds it took to its end."""
        began = time.monotonic()
        await self._one("chain", next(self._numbers))
        return time.monotonic() - began

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._beginner())

    async def _beginner(self) -> None:
        while not self._stopping and (n := next(self._numbers)) < self._most:
            await self._one(self._kinds[n % len(self._kinds)], n)

    async def _one(self, kind: str, n: int) -> None:
        inputs, deadline = {"kind": kind, "n": n, "work": self._work}, nodes.DEADLINE if kind == "deadline" else None
        run = await self._client.start("root", inputs, id=f"{kind}-{n}", deadline=deadline)
        self.accepted[run.id] = kind
        commanding = asyncio.create_task(self._command(run, kind, n))
        refusing = asyncio.create_task(self._refuse(run)) if self._refusals else None
        try:
            try:
                outputs = await run.outputs()
            except RunFailed as error:
                if error.status != nodes.STATUSES.get(kind):
                    raise
                outputs = nodes.expected(kind, n)
            self.ended[run.id] = time.monotonic()
            if outputs != nodes.expected(kind, n):
                self.wrong.append(f"{run.id}: {outputs}")
            if refusing is not None:
                await refusing
        except FlowKitError as error:
            self.wrong.append(f"{run.id}: {error}")
        finally:
            for task in filter(None, (commanding, refusing)):
                task.cancel()
                await asyncio.wait((task,))

    def statuses(self) -> Counter[str]:
        """How the runs that were accepted have to end."""
        return Counter(nodes.STATUSES.get(kind, "succeeded") for kind in self.accepted.values())

    async def _command(self, run: Run, kind: str, n: int) -> None:
        if kind == "cancel":
            await run.cancel()
        elif kind == "wait":
            await self._signal(run, n)

    async def _signal(self, run: Run, n: int) -> None:
        await run.signal("go", {"n": n})
        while self._signal_again:
            await asyncio.sleep(AGAIN)
            await run.signal("go", {"n": n})

    async def _refuse(self, run: Run) -> None:
        """Resume what was never paused, and run again from a task that does not exist: no coordinator can do that."""
        resume = Command(id=uuid4(), kind=CommandKind.RESUME, run_id=run.id)
        rerun = Command(id=uuid4(), kind=CommandKind.RERUN, run_id=run.id, new_run_id=f"{run.id}-2", task_id=uuid4())
        self.refused |= {resume.id, rerun.id}
        self.unanswered[rerun.id] = run.id
        await self._client.command([resume])
        again = await self._client.attach(rerun)
        try:
            await again.end()
            self.wrong.append(f"{run.id} was run again from a task that it has not")
        except Refused:
            del self.unanswered[rerun.id]

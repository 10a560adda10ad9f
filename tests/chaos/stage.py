"""Where a fault happens: coordinators and workers as processes under load, and the audit that ends every scenario."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.broker import open_broker
from flowkit.cli.doctor.audit import audit
from flowkit.client import Client
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.chaos import nodes
from tests.chaos.answers import missing_answers, wait_dead_letters
from tests.chaos.load import Load
from tests.e2e.processes import Command, Shell
from tests.services.postgres import Cluster
from tests.services.rabbitmq import RabbitMQ

NODES = str(Path(nodes.__file__))
NAMES = ("root", "step", "branch", "leaf", "shaky", "inner", "join", "limited", "flood", "timed", "long")
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds until what was accepted must have ended
TOLD = 6_000  # characters of a process's log that a failure shows
LOOK = 0.02  # seconds between looks at what no signal tells


@dataclass(frozen=True)
class Place:
    """The services of one scenario, and an empty folder."""

    rabbit: RabbitMQ
    postgres: Callable[[], Cluster]  # started at the first call
    folder: Path
    namespace: str


@dataclass
class Figures:
    """What a scenario came to."""

    scenario: str
    faults: int = 0
    accepted: int = 0
    ended: int = 0
    lost: int = 0
    executions: int = 0
    again: int = 0  # executions of a task and try that had begun before
    finished_again: int = 0  # of those that had even come to their end before
    recovery: list[float] = field(default_factory=list)  # seconds from the end of a fault to the end of a fresh run
    seconds: float = 0
    wrong: list[str] = field(default_factory=list)
    notes: str = ""


class Stage:
    """The processes of one scenario.

    Args:
        shell: with the addresses in its environment.
        namespace: of exchanges and queues.
        own: the address of the broker, without anything in between: for the client and the audit.
        figures: where to count.
        program: what coordinators are.
        worker_program: what workers are.
    """

    def __init__(
        self, shell: Shell, namespace: str, own: str, figures: Figures, program: tuple[str, ...],
        worker_program: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.shell, self.namespace, self.own, self.figures = shell, namespace, own, figures
        self.program, self.worker_program = program, worker_program
        self.coordinators: list[Command] = []
        self.workers: list[Command] = []
        self.load: Load  # set when it begins
        self.record = Path(shell.environment["CHAOS_RECORD"])

    async def coordinator(self, *args: str) -> Command:
        """Start one more."""
        command = await self.shell.python(*self.program, "coordinator", *args)
        await command.says("is ready")
        self.coordinators.append(command)
        return command

    async def worker(self) -> Command:
        """Start one more."""
        command = await self.shell.python(*self.worker_program, "worker", "--node", NODES)
        await command.says("takes tasks of")
        self.workers.append(command)
        return command

    async def replace(self, command: Command) -> Command:
        """Start another process like this one, which has ended."""
        for commands, begin in ((self.coordinators, self.coordinator), (self.workers, self.worker)):
            if command in commands:
                commands.remove(command)
                return await begin()
        raise AssertionError("no process of this stage")

    def executions(self) -> int:
        """Lines of the record so far."""
        return self.record.read_bytes().count(b"\n") if self.record.exists() else 0

    async def progress(self, lines: int = 20) -> None:
        """Wait until this many more lines were written by nodes: work is under way."""
        target = self.executions() + lines
        await until(lambda: self.executions() >= target, f"{lines} more executions")

    async def recovered(self) -> float:
        """The fault is over: wait until a fresh run has gone through; the seconds are a figure."""
        async with asyncio.timeout(PATIENCE):
            seconds = await self.load.probe()
        self.figures.faults += 1
        self.figures.recovery.append(round(seconds, 2))
        return seconds

    async def conclude(self, dead: tuple[str, ...] = (), *, wiped: bool = False) -> Figures:
        """Let all that was accepted end, then audit everything.

        Args:
            dead: reasons of dead letters that the scenario accounts for.
            wiped: the broker has lost its data, and with it dead letters that no coordinator had read.
        """
        figures, load = self.figures, self.load
        await load.finish(PATIENCE)
        figures.accepted, figures.ended = len(load.accepted), len(load.ended)
        figures.lost = figures.accepted - figures.ended
        figures.wrong += load.wrong
        if figures.lost:
            left = sorted(load.accepted.keys() - load.ended.keys())
            for run in left[:2]:
                figures.wrong.append(f"{run} has not ended: {(await self.shell.call('runs', 'explain', run))[1]}")
        figures.wrong += [f"{run}: rerun {rerun} was not answered" for rerun, run in load.unanswered.items()]
        await self._queues_are_empty()
        await self._refused_commands_are_kept()
        for command in (*self.workers, *self.coordinators):
            if (code := await command.terminate()) != 0:
                figures.wrong.append(f"flowkit {' '.join(command.args)} exits {code}: {command.said[-2000:]}")
        await self._rows(dead, wiped=wiped)
        self._executed()
        return figures

    async def _queues_are_empty(self) -> None:
        topology = Topology(self.namespace)
        queues = [topology.starts, topology.commands, topology.results, topology.dead, topology.unreadable]
        queues += [topology.tasks(name) for name in NAMES]
        broker = open_broker(self.own)
        try:
            for queue in queues:
                try:
                    async with asyncio.timeout(20):
                        while (state := await broker.inspect(queue.name)) is not None and state.ready:
                            await asyncio.sleep(LOOK)
                except TimeoutError:
                    self.figures.wrong.append(f"{state} in {queue.name} when all runs have ended")
        finally:
            await broker.close()

    async def _refused_commands_are_kept(self) -> None:
        if self.load.refused:
            store = await open_store(self.shell.environment["FLOWKIT_STORE_URL"])
            try:
                self.figures.wrong += await wait_dead_letters(store, self.load.refused, 20)
            finally:
                await store.close()

    async def _rows(self, dead: tuple[str, ...], *, wiped: bool) -> None:
        store = await open_store(self.shell.environment["FLOWKIT_STORE_URL"])
        try:
            found = await audit(store, since=None, progress=lambda _: None)
            letters = await store.query(lambda queries: queries.dead(limit=TOLD))
            self.figures.wrong += await missing_answers(store, self.load.ended, wiped=wiped)
        finally:
            await store.close()
        wrong = self.figures.wrong
        wrong += [f"audit of {run}: {problem}" for run, problem in found.problems]
        expected = self.load.statuses()
        if any(found.runs[status] != expected[status] for status in {*found.runs, *expected} - {"succeeded"}):
            wrong.append(f"runs by status: {dict(found.runs)}, expected {dict(expected)}")
        if found.runs.total() < len(self.load.accepted):
            wrong.append(f"{found.runs.total()} runs in the store, and {len(self.load.accepted)} were accepted")
        if set(found.dead) - set(dead):
            wrong.append(f"dead letters: {dict(found.dead)}, accounted for: {dead}")
            wrong += [letter.detail[-TOLD:] for letter in letters if letter.reason not in dead][:2]

    def _executed(self) -> None:
        counts: dict[str, Counter[str]] = {"begin": Counter(), "end": Counter()}
        for line in self.record.read_text().splitlines():
            word, task, tries, _ = line.split()
            counts[word][f"{task} {tries}"] += 1
        figures = self.figures
        figures.executions = counts["begin"].total()
        figures.again = figures.executions - len(counts["begin"])
        figures.finished_again = counts["end"].total() - len(counts["end"])


@asynccontextmanager
async def stage(
    scenario: str, folder: Path, namespace: str, url: str, *, store: str | None = None, through: str | None = None,
    program: str | None = None, worker_program: str | None = None, workers: int = 1, coordinators: int = 1,
    load: dict[str, Any] | None = None,
    **environment: str,
) -> AsyncIterator[Stage]:  # fmt: skip
    """A stage with its processes and its load under way.

    Args:
        scenario: its name.
        folder: an empty one.
        namespace: of exchanges and queues.
        url: of the broker.
        store: address of a database; a file in the folder when left out.
        through: the address of the broker that processes use, such as a proxy's.
        program: a file that coordinators are started from, in place of ``flowkit``.
        worker_program: a file that workers are started from.
        workers: how many.
        coordinators: how many.
        load: arguments of ``Load``.
        environment: settings.
    """
    async with AsyncExitStack() as stack:
        shell = Shell(
            folder,
            **{
                "FLOWKIT_BROKER_URL": through or url,
                "FLOWKIT_NAMESPACE": namespace,
                "FLOWKIT_STORE_URL": store or f"sqlite:///{folder}/flowkit.db",
                "FLOWKIT_HEARTBEAT": "2",
                "CHAOS_RECORD": str(folder / "record"),
                "PYTHONPATH": str(ROOT),
            }
            | environment,
        )
        stack.push_async_callback(shell.close)
        began = time.monotonic()
        programs = [(file,) if file else ("-m", "flowkit.cli") for file in (program, worker_program)]
        here = Stage(shell, namespace, url, Figures(scenario), *programs)
        for _ in range(coordinators):
            await here.coordinator()
        for _ in range(workers):
            await here.worker()
        client = await stack.enter_async_context(Client(url, namespace=namespace, patience=PATIENCE))
        here.load = Load(client, **(load or {}))
        stack.push_async_callback(here.load.cancel)
        await here.progress()
        try:
            yield here
        except Exception as error:
            for command in (*here.coordinators, *here.workers):
                error.add_note(f"flowkit {' '.join(command.args)} said:\n{command.said[-TOLD:]}")
            raise
        here.figures.seconds = round(time.monotonic() - began, 1)


async def until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Wait until this holds, which no signal tells."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise AssertionError(f"waited {timeout:g} s for {what}") from None


def stop(command: Command) -> None:
    """SIGSTOP: it stands still, and its sockets stay open."""
    command.process.send_signal(signal.SIGSTOP)


def go_on(command: Command) -> None:
    """SIGCONT."""
    command.process.send_signal(signal.SIGCONT)


def said(command: Command, pattern: str) -> int:
    """How many lines of its log match."""
    return len(re.findall(pattern, command.said))

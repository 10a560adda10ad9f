"""``Simulation``: a whole FlowKit in a test, on a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from flowkit.coordinator import Pace, calendars
from flowkit.errors import UsageError
from flowkit.flow.limits import Limits
from flowkit.flow.schedules import Missed, Schedule, comes_next
from flowkit.node import Node
from flowkit.store.protocol import Transaction
from flowkit.store.views import Queries
from flowkit.testing import audit
from flowkit.testing.clock import VirtualLoop, run_scene
from flowkit.testing.faults import Fates, Faults
from flowkit.testing.house import SECRET, House
from flowkit.testing.nodes import Call, find
from flowkit.testing.run import SimulatedRun
from flowkit.wire import codec

T = TypeVar("T")
FIRST_LOOK = 0.001  # seconds until the first look whether anything is still going on; each look doubles it …
LAST_LOOK = 0.5  # … up to this
ALL = 1_000_000  # runs


class Simulation:
    """Coordinator, workers, broker and store in this process, on a clock that leaps over what nobody has to wait for.

    ::

        with Simulation(expense, pay, escalate) as sim:
            run = sim.start("expense", {"who": "ann", "amount": 480})
            sim.advance(days=2)
            run.signal("approval", {"approved": True})
            assert run.outputs()["paid"] == 480

    Time stands still between the calls of a test; each call lets happen what it asks for.

    Args:
        nodes: Nodes, node files (``.py``) and folders of them; of two with one name the later one counts, so that a
            test can put its own in place of one that it cannot run.
        seed: all chance follows from it, that of the module ``random`` too: the same seed plays the same again.
        faults: what goes wrong.
        workers: how many there are; each has all nodes.
        coordinators: how many there are.
        begins: what time it is at the beginning; midnight of 1 January 2030 UTC unless given.
        limits: guards of runs.
        pace: of the coordinator's loops.
    """

    def __init__(
        self,
        *nodes: Node | Path | str,
        seed: int = 0,
        faults: Faults | None = None,
        workers: int = 1,
        coordinators: int = 1,
        begins: datetime | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
    ) -> None:
        if min(workers, coordinators) < 0:
            raise UsageError(f"workers={workers}, coordinators={coordinators}: expected numbers from 0 on")
        self.seed, self.faults = seed, faults or Faults()
        self._house: House | None = None
        self._begins = (begins or datetime(2030, 1, 1, tzinfo=UTC)).timestamp()
        self._definitions = find(nodes)
        self._fates = Fates(seed, self.faults)
        self._furnish = partial(
            House, definitions=self._definitions, coordinators=coordinators, workers=workers, limits=limits, pace=pace
        )
        self._begun = 0

    def __enter__(self) -> Self:
        self._randomness = random.getstate()
        random.seed(self.seed)
        self._loop = VirtualLoop(self._begins)
        self._runner = asyncio.Runner(loop_factory=lambda: self._loop)
        # A test that is async has a loop already, and a thread has one at a time.
        self._thread = ThreadPoolExecutor(1, "simulation") if _in_a_loop() else None
        self._house = house = self._furnish(self._loop, self._fates)
        try:
            self.play(house.open())
            self.rest()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        random.setstate(self._randomness)
        with contextlib.ExitStack() as stack:
            if self._thread is not None:
                stack.callback(self._thread.shutdown)
            stack.callback(self._in_its_thread, self._runner.close)
            self.play(self._inside.close())
        if error is not None:
            error.add_note(f"To play it again: Simulation(…, seed={self.seed}, faults={self.faults})")

    # What a test does

    def start(
        self,
        node: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the word of the command line
        tags: Mapping[str, str] | None = None,
        delay: float = 0,
        deadline: float | None = None,
    ) -> SimulatedRun:
        """Begin a run; it goes on when something is waited for.

        Args:
            node: name of its first node.
            inputs: a JSON object.
            id: the run's id; ``run-1``, ``run-2`` and so on unless given.
            tags: words to find it by.
            delay: seconds before its first task is sent.
            deadline: seconds after which it fails when it has not ended.
        """
        self._begun += 1
        name = id or f"run-{self._begun}"
        begin = self._inside.client.start(node, inputs, id=name, tags=tags, delay=delay, deadline=deadline)
        return SimulatedRun(self, self.play(begin))

    def schedule(
        self, name: str, *, cron: str, node: str, inputs: Mapping[str, Any] | None = None, timezone: str = "UTC",
        missed: str = "skip", overlap: bool = False,
    ) -> None:  # fmt: skip
        """Begin a run at each time that a cron line names, as ``flowkit schedule add`` does.

        Args:
            name: of the schedule.
            cron: five fields.
            node: name of the first node of each run.
            inputs: a JSON object.
            timezone: in which the line is read.
            missed: ``skip`` or ``once``, for times at which no coordinator was there.
            overlap: begin a run although the last one has not ended.

        Raises:
            InvalidSchedule: the line or the zone cannot be.
        """
        after = calendars.cron(cron, timezone).after
        asked = Schedule(
            name=name, cron=cron, timezone=timezone, node=node, missed=Missed(missed), overlap=overlap,
            inputs=codec.encode_object(dict(inputs or {}), "inputs"), created_at=self.wall(),
        )  # fmt: skip

        def add(transaction: Transaction) -> None:
            transaction.put_schedule(comes_next(asked, transaction.now(), after))

        self.play(self._write(add))

    @property
    def runs(self) -> list[SimulatedRun]:
        """All runs, in the order in which they began: those of schedules, and detached ones, too."""
        rows, _ = self.query(lambda queries: queries.runs(limit=ALL))
        rows.sort(key=lambda row: (row.started_at, row.parent is not None, row.id))
        return [SimulatedRun(self, self._inside.client.run(row.id)) for row in rows]

    def rest(self) -> None:
        """Let happen what happens until all is at rest: what is left waits for time, or for somebody."""
        self.play(self._come_to_rest())

    def advance(
        self, delta: timedelta | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0,
        seconds: float = 0,
    ) -> None:  # fmt: skip
        """Let time pass, and with it all that is due meanwhile, in its order; then come to rest."""
        passing = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds) + (delta or timedelta())
        if passing < timedelta():
            raise UsageError(f"advance({passing}): time goes forward only")
        self.play(self._pass(passing.total_seconds()))

    def until(self, condition: Callable[[], bool]) -> None:
        """Let happen what happens, and time pass, until a condition holds.

        Raises:
            AssertionError: nothing is left to happen, and it does not hold.
        """
        if not self.wait_for(condition):
            raise AssertionError("nothing is left to happen, and what was waited for has not come about")

    def calls(self, node: str | None = None) -> list[Call]:
        """The calls of a node's main, or of all mains, in their order; a task may run more than once."""
        return [call for call in self._inside.calls if node in (None, call.node)]

    def ran(self, node: str) -> int:
        """How many tasks of a node ran; one that ran twice counts once."""
        return len({(call.run_id, call.task_id) for call in self.calls(node)})

    @property
    def now(self) -> datetime:
        """What time it is."""
        return datetime.fromtimestamp(self.wall(), UTC)

    @property
    def trace(self) -> list[str]:
        """All steps that were taken, and what went wrong at them; equal for equal seeds."""
        return self._fates.trace

    @property
    def happened(self) -> int:
        """How many faults there were."""
        return self._fates.happened

    def audit(self, *, accept: Collection[str] = ()) -> None:
        """Let all runs end, and look that nothing was lost, applied twice, or left over.

        Args:
            accept: reasons of dead letters that were to be expected, such as ``refused``.

        Raises:
            AssertionError: something does not hold; the message says all that.
        """
        self.wait_for(lambda: self.query(_none_runs))
        self.rest()
        house = self._inside
        found = self.query(
            lambda queries: audit.problems(
                queries,
                house.server,
                self._definitions,
                house.calls,
                bytes.fromhex(SECRET),
                announced=house.announced,
                wiped=self._fates.wiped,
                accept=accept,
            )
        )
        found += house.limits.problems
        if wrong := self.play(self._write(lambda transaction: transaction.recount())):
            found.append(f"{wrong} counters of scopes disagreed with their rows")
        if found:
            raise AssertionError("after all that:\n  " + "\n  ".join(found))

    def query(self, function: Callable[[Queries], T]) -> T:
        """Ask the store."""
        return self.play(self._read(function))

    # What its parts need of it

    def play(self, scene: Coroutine[Any, Any, T]) -> T:
        """Run this on the simulation's loop, and with it all that is under way."""
        result: T = self._in_its_thread(lambda: run_scene(self._runner, scene))
        return result

    def wait_for(self, done: Callable[[], bool]) -> bool:
        """Let happen what happens, and time pass, until ``done``; False when nothing is left to happen before."""
        look = FIRST_LOOK
        while not done():
            at_rest, due = self.play(self._inside.look(look))
            look = min(2 * look, LAST_LOOK)
            if at_rest and not done():
                if due is None:
                    return False
                self._loop.sleep_until(due)
                look = FIRST_LOOK
        return True

    def wall(self) -> float:
        """What time it is, Unix seconds."""
        return self._loop.wall()

    # Inside

    async def _pass(self, seconds: float) -> None:
        until, look = self.wall() + seconds, FIRST_LOOK
        while (left := until - self.wall()) > 0:
            at_rest, due = await self._inside.look(min(look, left))
            look = min(2 * look, LAST_LOOK)
            if at_rest:
                self._loop.sleep_until(until if due is None else min(due, until))
                look = FIRST_LOOK
        await self._come_to_rest()

    async def _come_to_rest(self) -> None:
        look = FIRST_LOOK
        while not (await self._inside.look(look))[0]:
            look = min(2 * look, LAST_LOOK)

    async def _read(self, function: Callable[[Queries], T]) -> T:
        return await self._inside.store.query(function)

    async def _write(self, function: Callable[[Transaction], T]) -> T:
        return await self._inside.store.transact(function)

    def _in_its_thread(self, work: Callable[[], Any]) -> Any:
        return work() if self._thread is None else self._thread.submit(work).result()

    @property
    def _inside(self) -> House:
        if self._house is None:
            raise UsageError("a Simulation is used inside 'with Simulation(…) as sim:'")
        return self._house


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _none_runs(queries: Queries) -> bool:
    counts = queries.run_counts()
    return not counts.get("running") and not counts.get("paused")

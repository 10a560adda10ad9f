"""Executions from beginning to end: waiting for their turn, running, reported, or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from flowkit.broker.protocol import Consumer, Delivery
from flowkit.errors import TooLarge
from flowkit.flow.limits import Limits
from flowkit.wire.messages import Control, Status
from flowkit.worker import report
from flowkit.worker.current import Sink
from flowkit.worker.execute import Clock, execute
from flowkit.worker.execution import Execution, Key, Taken
from flowkit.worker.report import Report
from flowkit.worker.reporter import Deliveries, Letter, Reporter
from flowkit.worker.stage import Stage
from flowkit.worker.turns import Turns

LET_GO = 0.5  # seconds for author code to end when the worker does
_FINAL = (Status.SUCCEEDED, Status.FAILED, Status.RETRY)


class Runner:
    """Runs what was taken, and hands the results to the reporter.

    Args:
        group: what ends when an execution ends as none should.
        slots: how many tasks of each node run at a time.
        stage: where the nodes' code runs.
        taken: where executions are kept until they are answered.
        reporter: publishes and acknowledges.
        sink: where the lines go that nodes log.
        worker: the name of this process.
        limits: how much one task may return.
        clock: Unix seconds.
        durations: of nodes that want to know, called with the seconds that each of their tasks took.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        slots: Mapping[str, int],
        stage: Stage,
        taken: Taken,
        reporter: Reporter,
        sink: Sink,
        worker: str,
        limits: Limits,
        clock: Clock,
        durations: Mapping[str, Callable[[float], None]],
    ) -> None:
        self._group, self._stage, self._durations = group, stage, durations
        self._turns = Turns(slots, self._begin)
        self._taken, self._reporter, self._sink = taken, reporter, sink
        self._worker, self._limits, self._clock = worker, limits, clock

    def begin(self, execution: Execution) -> None:
        """Run it as soon as its turn comes."""
        execution.taken = asyncio.get_running_loop().time()
        self._taken.add(execution)
        if self._taken.was_cancelled(execution.key):
            self._post(execution, report.returned(execution.task, worker=self._worker))
        else:
            self._turns.ask(execution)

    async def begin_no_more(self) -> None:
        """Leave what has not begun to the next worker, and so all that comes."""
        self._turns.close()
        await self.put_back(execution for execution in self._taken if execution.since is None)

    async def abandon(self) -> None:
        """Stop everything, and wait no longer for code that does not end when it is cancelled, or cannot hear of it."""
        self._turns.close()
        for execution in self._taken:
            if not execution.reported:
                self._stop(execution)
        if not await self._turns.all_left(LET_GO):
            for execution in self._turns.inside:  # it may have heard the first time, and gone on
                if execution.job is not None:
                    execution.job.cancel()
            await self._turns.all_left(LET_GO)

    async def relieve(self, patience: float) -> None:
        """For ever: give back by a result what has waited for ``patience`` seconds behind long tasks.

        Another worker may have room for it. ``ReadAhead`` requeues most of it after a second; this is for what it
        leaves, such as tasks without a message, or those that wait while another one runs alone. A task that has to run
        alone stays: sent anew, it would begin again among others, and take them along. So does one with a time to begin
        by: sent anew, it would get another one.
        """
        while True:
            await asyncio.sleep(patience / 10)
            before = asyncio.get_running_loop().time() - patience
            for execution in self._taken:
                bound = execution.suspect or execution.task.start_by is not None
                if execution.since is None and execution.taken < before and not bound:
                    self.give_back(execution)

    async def obey(self, control: Control) -> None:
        """Do what a coordinator asks of this worker's executions."""
        if control.worker not in (None, self._worker) or (control.run_id is None and control.task_id is None):
            return
        named = _named(control)
        if control.kind == "cancel":
            for key in named:
                self._taken.cancel(key)
        for execution in self._taken:
            if not (_concerns(control, execution) or execution.key in named):
                continue
            match control.kind:
                case "leased":
                    await _acknowledge(execution)
                case "cancel" if execution.stopping and control.worker is not None:
                    # The answer to an announcement: its main takes long to end, and the broker must not wait for it.
                    # The store does not want the task any more, so nothing is lost with its message.
                    await _acknowledge(execution)
                case "cancel" if execution.since is not None and control.grace:
                    self._let_end(execution, control.grace)
                case "cancel":
                    self._cancel(execution)
                case "paused" if execution.since is not None:
                    pass  # what runs comes to its end
                case _:
                    self.give_back(execution)

    def give_back(self, execution: Execution) -> None:
        """Stop it, and say that it was returned; its message is acknowledged after that."""
        if not execution.reported:
            self._stop(execution)
            self._post(execution, report.returned(execution.task, worker=self._worker))

    def _cancel(self, execution: Execution) -> None:
        """Stop it, and report it as returned when its main has ended: it counts in its node's limit until then."""
        if execution.job is None:
            self.give_back(execution)
        elif not execution.reported:
            self._stop(execution)
            execution.stopping = True

    def _let_end(self, execution: Execution, grace: float) -> None:
        """It may run for ``grace`` seconds more. What is said again changes nothing: the first word holds."""
        if execution.grace is None and not execution.reported:
            later = asyncio.get_running_loop().call_later
            execution.grace = later(grace, self._cancel, execution)

    async def put_back(self, executions: Iterable[Execution]) -> None:
        """Stop these and leave them to the next worker, as if they had never been here."""
        back: dict[Consumer, list[Delivery]] = {}
        for execution in executions:
            if execution.stopping:
                self._post(execution, report.returned(execution.task, worker=self._worker))
            elif not execution.deliveries or execution.grace:
                self.give_back(execution)  # leased: only a result brings it back; cancelled: nobody else shall begin it
            elif not execution.reported:
                self._stop(execution)
                self._taken.drop(execution)
                for consumer, delivery in execution.deliveries:
                    back.setdefault(consumer, []).append(delivery)
        for consumer, deliveries in back.items():
            await consumer.requeue(deliveries)

    def _begin(self, execution: Execution) -> None:
        execution.since, execution.begun = self._clock(), asyncio.get_running_loop().time()
        if not execution.suspect:
            self._start(execution)
            return

        def confirmed() -> Deliveries:
            if not execution.reported:
                self._start(execution)
            return ()

        # Whoever counts these knows, should this process die then, which task killed it.
        started = report.started(execution.task, worker=self._worker, now=execution.since)
        self._reporter.post(Letter(started, execution.traceparent, confirmed))

    def _start(self, execution: Execution) -> None:
        name = f"node {execution.task.node}, task {execution.task.task_id}"
        execution.job = self._stage.start(partial(self._execute, execution), name, partial(self._ended, execution))

    def _ended(self, execution: Execution, main: asyncio.Task[None]) -> None:
        if execution.stopping:
            self._post(execution, report.returned(execution.task, worker=self._worker))
        elif not execution.reported:
            self._conclude(execution, main)
        self._turns.leave(execution)  # what it had to say comes before what the next one has
        if (record := self._durations.get(execution.task.node)) is not None:
            record(asyncio.get_running_loop().time() - execution.begun)

    def _conclude(self, execution: Execution, main: asyncio.Task[None]) -> None:
        done = execution.report
        if done is None and main.cancelled():  # by code of a node, before it began
            done = report.cancelled(execution.task, worker=self._worker, now=self._clock())
        if done is not None:
            self._post(execution, done)
        elif (error := main.exception()) is not None:  # a mistake of ours; it is carried on whole, and ends the worker
            self._group.create_task(_raise(error))

    def _stop(self, execution: Execution) -> None:
        execution.reported = True  # whatever its main still says is not wanted any more
        execution.cancelled = True
        if execution.job is None:
            self._turns.leave(execution)
        else:
            execution.job.cancel()  # and it leaves when it has ended

    async def _execute(self, execution: Execution) -> None:
        # Not as the result of the asyncio task: a main that cancels it in its last step leaves it without one.
        execution.report = await execute(
            execution.task,
            execution.definition,
            sink=self._sink,
            worker=self._worker,
            clock=self._clock,
            limits=self._limits,
            cancelled=lambda: execution.cancelled,
        )

    def _post(self, execution: Execution, done: Report) -> None:
        execution.reported, execution.stopping = True, False
        if execution.grace is not None:
            execution.grace.cancel()
        self._reporter.post(self._letter(execution, done))

    def _letter(self, execution: Execution, done: Report) -> Letter:
        messages = frozenset(execution.messages)

        def confirmed() -> Deliveries:
            answered = execution.answered(messages)
            if execution.deliveries:
                # Another message came while this one waited for its confirm. The broker that confirmed may have been
                # wiped since, and been sent the task again because the result is gone: so the result is said again.
                self._reporter.post(self._letter(execution, done))
            elif done.status in _FINAL:
                self._taken.answered(execution)
            else:
                self._taken.drop(execution)
            return answered

        def too_large(error: TooLarge) -> Letter:
            smaller = report.refused(execution.task, error, worker=self._worker, now=self._clock())
            return self._letter(execution, smaller)

        return Letter(done, execution.traceparent, confirmed, too_large)


async def _raise(error: BaseException) -> None:
    raise error


async def _acknowledge(execution: Execution) -> None:
    """The store answers for it from now on; the broker need not wait for its end."""
    deliveries, execution.deliveries = execution.deliveries, []
    for consumer, delivery in deliveries:
        await consumer.ack([delivery])


def _named(control: Control) -> set[Key]:
    """The attempts that a message names one by one."""
    if control.run_id is None:
        return set()
    named = {(control.run_id, task_id.int, attempt) for task_id, attempt in control.others}
    if control.task_id is not None and control.attempt is not None:
        named.add((control.run_id, control.task_id.int, control.attempt))
    return named


def _concerns(control: Control, execution: Execution) -> bool:
    task = execution.task
    return (
        control.run_id in (None, task.run_id)
        and control.task_id in (None, task.task_id)
        and control.attempt in (None, task.attempt)
    )

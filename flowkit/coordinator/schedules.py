"""Begins the runs of schedules.

One transaction takes what is due, moves it on and begins its runs, whose ids follow from schedule and time: whatever
dies at whatever moment, and however many coordinators look, each tick begins one run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from flowkit.coordinator import calendars
from flowkit.coordinator.isolation import Skipped, process_apart
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.publish_queue import PublishQueue
from flowkit.errors import UsageError
from flowkit.flow import schedules
from flowkit.flow.events import Event
from flowkit.flow.schedules import Schedule
from flowkit.store.protocol import Transaction

logger = logging.getLogger(__name__)
REASON = 1_000  # characters of an error that its row shows
LIMIT = 100  # schedules in a transaction: about 20 ms of reckoning
COMPLAIN_EVERY = 600  # seconds


class Schedules:
    """Looks every ``every`` seconds for schedules that are due.

    Args:
        ledger: of this coordinator.
        publishing: takes the first tasks of the runs.
        every: seconds between looks.
    """

    def __init__(self, ledger: Ledger, publishing: PublishQueue, *, every: float) -> None:
        self._ledger, self._publishing, self._every = ledger, publishing, every
        self._skipped = Skipped("schedules", "schedule_failed")

    async def run(self) -> None:
        """For ever; without the library that knows cron lines, only complain when there are any."""
        while not calendars.installed():
            if await self._ledger.transact(lambda transaction: transaction.due_schedules(transaction.now(), 1)):
                logger.error(
                    "schedules are due and none begins a run here: cronsim is missing. Install it with: "
                    "pip install 'flowkit-mq[cron]'", extra={"action": "no_cron"}
                )  # fmt: skip
            await asyncio.sleep(COMPLAIN_EVERY)
        while True:
            while await self.look() == LIMIT:
                pass
            await asyncio.sleep(self._every)

    async def look(self) -> int:
        """Begin the runs that are due. A schedule that cannot be begun is looked at again later; the others go on.

        Returns:
            how many schedules were due.
        """
        due = await self._ledger.transact(lambda transaction: transaction.due_schedules(transaction.now(), LIMIT))
        names = [schedule.name for schedule, _ in due]
        begun, failed = await process_apart(names, self._begin)
        for name, error in failed:
            self._skipped.add(name, error)
            if await self._ledger.transact(partial(_fail, name, f"{type(error).__name__}: {error}"[:REASON])):
                begun.append(1)
        return sum(begun)

    async def _begin(self, names: Sequence[str]) -> int:
        """Begin the runs of these schedules, those that are due still, in one transaction."""
        moves: list[tuple[Schedule, Schedule]] = []

        def work(transaction: Transaction) -> Sequence[Event]:
            now = transaction.now()
            moves.clear()  # a transaction that lost against another one is run again
            events: list[Event] = []
            for schedule, busy in transaction.due_schedules(now, LIMIT):
                if schedule.name not in names:
                    continue
                moved, started = _tick(schedule, now, busy=busy)
                moves.append((schedule, moved))
                events += [] if started is None else [started]
            transaction.move_schedules([moved for _, moved in moves])
            return events

        committed = await self._ledger.commit(work)
        for before, after in moves:
            _tell(before, after)
        self._publishing.add(committed)
        return len(moves)


def _fail(name: str, why: str, transaction: Transaction) -> bool:
    """Have a schedule that cannot be begun looked at later; False when it is not due any more."""
    schedule, now = transaction.schedule(name), transaction.now()
    if schedule is None or schedule.look_at is None or schedule.look_at > now:
        return False
    transaction.move_schedules([schedules.failed(schedule, now, why)])
    return True


def _tick(schedule: Schedule, now: float, *, busy: bool) -> tuple[Schedule, Event | None]:
    try:
        after = calendars.cron(schedule.cron, schedule.timezone).after
    except UsageError as error:  # such as a time zone that this machine does not know: the others go on
        return schedules.failed(schedule, now, str(error)), None
    return schedules.tick(schedule, now, after, busy=busy)


def _tell(before: Schedule, after: Schedule) -> None:
    about = {"schedule": after.name}
    if after.skipped is None:
        logger.info("schedule %s begins run %s", after.name, after.last_run,
                    extra={"action": "scheduled", "run_id": after.last_run, **about})  # fmt: skip
    elif after.next_at == before.next_at:
        logger.error("schedule %s cannot be computed, trying again: %s", after.name, after.skipped,
                     extra={"action": "schedule_failed", **about})  # fmt: skip
    else:
        logger.warning("schedule %s skipped a run: %s", after.name, after.skipped,
                       extra={"action": "schedule_skipped", **about})  # fmt: skip
    if after.next_at is None:
        logger.warning("schedule %s never comes again", after.name, extra={"action": "schedule_ended", **about})

"""The simulator's own test: wrong variants of the protocol, each of which it must catch.

Each is what somebody might well write, and what nearly always works.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable
from functools import partial

import pytest

from flowkit.coordinator import Pace, isolation
from flowkit.coordinator.announcing import RunAnnouncements
from flowkit.coordinator.clock_steps import ClockSteps, StepDetector
from flowkit.coordinator.identity import Identity
from flowkit.coordinator.intake import Intake
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.read_progress import ReadProgressRecorder
from flowkit.coordinator.relay import Relay
from flowkit.flow import commands, overdue, paths, results
from flowkit.store import cancelled, effects, rows
from flowkit.testing import Faults
from flowkit.worker.reporter import Reporter
from flowkit.worker.runner import Runner
from tests.simulation.limited import contend
from tests.simulation.workflow import CLOCKS, meddle, play, play_durations, play_prompt

NO_SWEEPER = Pace(sweep_every=None)
SEEDS = 40  # of which the first that fails is enough
Mutant = Callable[[pytest.MonkeyPatch], None]


def acknowledge_before_commit(patch: pytest.MonkeyPatch) -> None:
    commit = Intake._commit

    async def mutant(self, deliveries):
        await self.consumer.ack(deliveries)
        return await commit(self, deliveries)

    patch.setattr(Intake, "_commit", mutant)


def no_relay(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self, *, after=None):
        return 0

    patch.setattr(Relay, "look", mutant)


def sent_before_the_confirm(patch: pytest.MonkeyPatch) -> None:
    send = Outbox.send

    async def mutant(self, tasks):
        self._ledger.mark_sent([task.mark for task in tasks], self._ledger.epoch)
        await self._ledger.flush_now()
        return await send(self, tasks)

    patch.setattr(Outbox, "send", mutant)


def acknowledge_before_the_result_is_confirmed(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self):
        while True:
            await self._some.wait()
            self._some.clear()
            batch, self._waiting = self._waiting, []
            bundles = self._bundles(batch)
            await self._settle(bundles, [None] * len(bundles))
            await self._broker.publish([bundle.message(self._exchange) for bundle in bundles])

    patch.setattr(Reporter, "run", mutant)


def no_refill(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self):
        pass

    patch.setattr(Identity, "_refill", mutant)


def no_deduplication(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "_why_superseded", lambda state, run, task, result: "unknown" if task is None else None)


def random_ids(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(paths, "task_id", lambda *_: uuid.uuid4())


def messages_are_blamed_for_the_store(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self, function):
        return await self._store.transact(function)

    patch.setattr(Ledger, "transact", mutant)
    patch.setattr(isolation, "SURROUNDINGS", ())


def no_relay_of_ends(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self, *, after=None):
        return 0

    patch.setattr(Relay, "announce", mutant)


def announced_before_the_confirm(patch: pytest.MonkeyPatch) -> None:
    announce = RunAnnouncements.announce

    async def mutant(self, ended):
        self._ledger.mark_announced([run.mark for run in ended])
        await self._ledger.flush_now()
        await announce(self, ended)

    patch.setattr(RunAnnouncements, "announce", mutant)


def a_refusal_is_noted_as_applied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commands, "_came_again", lambda state, run, command: iter(()))


def silence_by_the_time_of_day(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self):
        return False

    patch.setattr(ClockSteps, "check", mutant)


def a_worker_is_believed_that_it_is_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(overdue, "is_refused_early", lambda task, result, context: False)


def lateness_by_the_time_of_day(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StepDetector, "steady_for", lambda self, at: math.inf)


OF_DURATIONS = [silence_by_the_time_of_day, a_worker_is_believed_that_it_is_late, lateness_by_the_time_of_day]


def a_slot_is_free_at_the_cancellation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cancelled, "count", lambda database, slots: {})


def answered_at_the_cancellation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Runner, "_cancel", Runner.give_back)


def unmarked_counts_as_unsent_under_a_pause(patch: pytest.MonkeyPatch) -> None:
    def mutant(database, effect):
        database.execute(
            "UPDATE tasks SET status = 'held', held_for = :reason, due = NULL, unsent_since = NULL "
            f"WHERE run_id = :run_id AND {rows.OUTSTANDING} "
            "AND (status = 'queued' AND sent_at IS NULL OR held_for = 'limit')",
            {"run_id": effect.run_id, "reason": effect.reason},
        )

    patch.setattr(effects, "_hold_unsent", mutant)


MUTANTS: list[tuple[Mutant, Faults, Pace | None]] = [
    (acknowledge_before_commit, Faults(crash_coordinator=0.05), NO_SWEEPER),
    (no_relay, Faults(crash_coordinator=0.05), NO_SWEEPER),
    (no_relay, Faults(crash_coordinator=0.05), None),
    (sent_before_the_confirm, Faults(crash_coordinator=0.05), NO_SWEEPER),
    (acknowledge_before_the_result_is_confirmed, Faults(crash_worker=0.05), NO_SWEEPER),
    (no_refill, Faults(wipe=0.03), NO_SWEEPER),
    (no_deduplication, Faults(duplicate=0.2, lose_confirm=0.1), None),
    (messages_are_blamed_for_the_store, Faults(store_away=0.05, lose_commit=0.05), None),
    (random_ids, Faults(duplicate=0.2, lose_confirm=0.1), None),
]


# What people ask for, and time brings about, comes by no message that is delivered again.
OF_COMMANDS: list[tuple[Mutant, Faults]] = [
    (no_relay_of_ends, Faults(crash_coordinator=0.03, most=150)),
    (no_relay_of_ends, Faults(lose_commit=0.1, most=150)),
    (announced_before_the_confirm, Faults(crash_coordinator=0.03, most=150)),
    (a_refusal_is_noted_as_applied, Faults(crash_coordinator=0.03, most=150)),
    (a_refusal_is_noted_as_applied, Faults(lose_commit=0.03, most=150)),
]


# That a paused run stays held when another coordinator releases a task of it at that moment is a test on PostgreSQL
# (`test_a_delayed_task_that_is_released_while_its_run_is_paused_stays`): in a simulation, transactions never overlap.
OF_LIMITS: list[Mutant] = [
    a_slot_is_free_at_the_cancellation, answered_at_the_cancellation, unmarked_counts_as_unsent_under_a_pause,
]  # fmt: skip


@pytest.mark.parametrize("mutant", OF_LIMITS)
def test_too_many_tasks_of_a_limited_node_are_caught(monkeypatch, mutant):
    play_limited = partial(contend, coordinators=2)
    logging.disable(logging.CRITICAL)
    try:
        mutant(monkeypatch)
        caught = next((seed for seed in range(SEEDS) if _fails(seed, Faults(), None, play=play_limited)), None)
    finally:
        logging.disable(logging.NOTSET)
    assert caught is not None, f"{SEEDS} seeds have not caught it"


@pytest.mark.parametrize(("mutant", "faults"), OF_COMMANDS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_answer_that_nobody_gets_is_caught(monkeypatch, mutant, faults):
    logging.disable(logging.CRITICAL)
    try:
        mutant(monkeypatch)
        caught = next((seed for seed in range(SEEDS) if _fails(seed, faults, None, play=meddle)), None)
    finally:
        logging.disable(logging.NOTSET)
    assert caught is not None, f"{SEEDS} seeds have not caught it"


@pytest.mark.parametrize("mutant", OF_DURATIONS, ids=lambda value: value.__name__)
def test_a_duration_by_a_clock_that_is_set_is_caught(monkeypatch, mutant):
    logging.disable(logging.CRITICAL)
    try:
        mutant(monkeypatch)
        caught = next((seed for seed in range(SEEDS) if _fails(seed, CLOCKS, None, play=play_durations)), None)
    finally:
        logging.disable(logging.NOTSET)
    assert caught is not None, f"{SEEDS} seeds have not caught it"


@pytest.mark.parametrize(("mutant", "faults", "pace"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_protocol_is_caught(monkeypatch, mutant, faults, pace):
    logging.disable(logging.CRITICAL)  # a mutant complains a lot
    try:
        mutant(monkeypatch)
        caught = next((seed for seed in range(SEEDS) if _fails(seed, faults, pace)), None)
    finally:
        logging.disable(logging.NOTSET)
    assert caught is not None, f"{SEEDS} seeds have not caught it"


def what_is_not_ready_counts_as_committed(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self):
        states = [await self._inspect(queue) for queue in self._queues]
        return all(state is not None and state.ready == 0 for state in states)

    patch.setattr(ReadProgressRecorder, "everything_committed", mutant)


def test_a_result_that_is_thrown_away_is_caught(monkeypatch):
    logging.disable(logging.CRITICAL)
    try:
        what_is_not_ready_counts_as_committed(monkeypatch)
        faults = Faults(store_slow=0.004)
        caught = next((seed for seed in range(SEEDS) if _fails(seed, faults, None, play=play_prompt)), None)
    finally:
        logging.disable(logging.NOTSET)
    assert caught is not None, f"{SEEDS} seeds have not caught it"


def _fails(seed: int, faults: Faults, pace: Pace | None, *, play: Callable[..., object] = play) -> bool:
    try:
        play(seed, faults, pace=pace)
    except Exception:
        return True
    return False

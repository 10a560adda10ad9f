"""Answers what workers announce: grants and renews the leases of long tasks, and says again what they have missed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.flow import leases
from flowkit.flow.leases import Lease
from flowkit.flow.terms import Terms
from flowkit.store.protocol import Transaction
from flowkit.wire import messages as wire

REMEMBERED = 600  # seconds: with many coordinators each one hears of a worker now and then only


@dataclass(frozen=True, slots=True)
class _List:
    """What a worker listed last: each task and attempt, and how many times something was amiss with it."""

    at: float  # by the loop's clock
    amiss: dict[tuple[UUID, int], int]


class Leases:
    """Answers announcements: ``leased``, and what a worker has missed.

    Only what a worker lists for the second time is looked up. Most tasks are over by then, so that the store is asked
    about long ones only; and a result that overtook the announcement which still lists its task is no reason to speak.
    """

    def __init__(self, ledger: Ledger, outbox: Outbox, terms: Terms) -> None:
        self._ledger, self._outbox, self._terms = ledger, outbox, terms
        self._lists: dict[str, _List] = {}  # by worker, the one that was heard of last at the end

    async def answer(self, announcements: Sequence[wire.Worker]) -> None:
        """Look up what these workers say they have, and tell them what follows."""
        said = [
            (told.worker, entry, (entry.run_id, entry.task_id))
            for told in announcements
            for entry in told.running
            if entry.run_id is not None and self._is_known(told.worker, entry)
        ]

        def work(transaction: Transaction) -> tuple[list[Lease], list[tuple[wire.Running, wire.Control]]]:
            now = transaction.now()
            known = transaction.known(key for _, _, key in said)
            there = [(worker, entry, known[key]) for worker, entry, key in said if key in known]
            due = [leases.lease(entry, row, worker, now, self._terms) for worker, entry, row in there]
            missed = [(entry, leases.telling(entry, row, worker, now)) for worker, entry, row in there]
            # What is cancelled, and what nobody knows any more, may count in a slot until its worker is done with it.
            wanted = {(entry.task_id, entry.attempt) for entry, control in missed if control is None}
            ending = [(*key, entry.attempt) for _, entry, key in said if (entry.task_id, entry.attempt) not in wanted]
            transaction.note_heard(ending, now - self._terms.silence / 3)
            held = transaction.lease([lease for lease in due if lease is not None])
            return held, [(entry, control) for entry, control in missed if control is not None]

        held, missed = await self._ledger.transact(work) if said else ([], [])
        self._remember(announcements)
        # A worker acknowledges when it hears this, so it is said when the lease is durable: and at every renewal, for
        # it may not have been heard.
        controls = dict.fromkeys(_leased(lease) for lease in held)
        for entry, control in missed:
            if self._count(control.worker or "", entry) == 1 or control.grace is None:  # no second word about a grace
                controls[control] = None  # one message for many tasks of a run
        await self._outbox.tell(list(controls))

    def _is_known(self, worker: str, entry: wire.Running) -> bool:
        before = self._lists.get(worker)
        return before is not None and (entry.task_id, entry.attempt) in before.amiss

    def _remember(self, announcements: Sequence[wire.Worker]) -> None:
        now = asyncio.get_running_loop().time()
        for told in announcements:
            before = self._lists.pop(told.worker, _List(now, {})).amiss
            keys = ((entry.task_id, entry.attempt) for entry in told.running)
            self._lists[told.worker] = _List(now, {key: before.get(key, 0) for key in keys})
        while (oldest := next(iter(self._lists))) and self._lists[oldest].at < now - REMEMBERED:
            del self._lists[oldest]

    def _count(self, worker: str, entry: wire.Running) -> int:
        amiss, key = self._lists[worker].amiss, (entry.task_id, entry.attempt)
        amiss[key] += 1
        return amiss[key]


def _leased(lease: Lease) -> wire.Control:
    return wire.Control(
        kind="leased", run_id=lease.run_id, task_id=lease.task_id, attempt=lease.attempt, worker=lease.worker
    )

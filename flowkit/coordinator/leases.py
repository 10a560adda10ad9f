"""Answers what workers announce: grants and renews the leases of long tasks, and says again what they have missed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.flow import leases
from flowkit.flow.leases import Lease, Terms
from flowkit.store.protocol import Transaction
from flowkit.wire import messages as wire

REMEMBERED = 1_000  # workers that had something amiss; those that died are never heard of again

Listed = tuple[str, UUID, int]  # run, task, attempt, as a worker lists it


class Leases:
    """Answers announcements: ``leased``, and what a worker has missed."""

    def __init__(self, ledger: Ledger, outbox: Outbox, terms: Terms) -> None:
        self._ledger, self._outbox, self._terms = ledger, outbox, terms
        self._amiss: dict[str, dict[Listed, int]] = {}  # worker -> what was wrong with its list, and how many times

    async def answer(self, announcements: Sequence[wire.Worker]) -> None:
        """Look up what these workers say they have, and tell them what follows."""
        said = [
            (told.worker, entry, (entry.run_id, entry.task_id))
            for told in announcements
            for entry in told.running
            if entry.run_id is not None
        ]

        def work(transaction: Transaction) -> tuple[list[Lease], list[tuple[Listed, wire.Control]]]:
            now = transaction.now()
            known = transaction.known(key for _, _, key in said)
            there = [(worker, entry, known[key]) for worker, entry, key in said if key in known]
            due = [leases.lease(entry, row, worker, now, self._terms) for worker, entry, row in there]
            missed = [
                ((entry.run_id or "", entry.task_id, entry.attempt), control)
                for worker, entry, row in there
                if (control := leases.telling(entry, row, worker, now)) is not None
            ]
            return transaction.lease([one for one in due if one is not None]), missed

        held, missed = await self._ledger.transact(work) if said else ([], [])
        # A worker acknowledges when it hears this, so it is said when the lease is durable: and at every renewal, for
        # it may not have been heard.
        controls = [_leased(lease) for lease in held]
        await self._outbox.tell([*controls, *self._again(announcements, missed)])

    def _again(
        self, announcements: Sequence[wire.Worker], missed: Sequence[tuple[Listed, wire.Control]]
    ) -> list[wire.Control]:
        """What workers have to be told again.

        Most of what is amiss is not: a result overtook the announcement that still lists its task. So it counts from
        the second time on. What has a grace is told once: a worker needs no second word to stop in time.
        """
        before = {told.worker: self._amiss.pop(told.worker, {}) for told in announcements}
        controls: dict[wire.Control, None] = {}
        for key, control in missed:
            assert control.worker is not None
            times = before[control.worker].get(key, 0) + 1
            self._amiss.setdefault(control.worker, {})[key] = times
            if times == 2 or (times > 2 and control.grace is None):
                controls[control] = None  # many tasks of a run make one message
        while len(self._amiss) > REMEMBERED:
            del self._amiss[next(iter(self._amiss))]
        return list(controls)


def _leased(lease: Lease) -> wire.Control:
    return wire.Control(
        kind="leased", run_id=lease.run_id, task_id=lease.task_id, attempt=lease.attempt, worker=lease.worker
    )

"""What one applied result of a chain costs in the store: load, settle, add the next task, count, mark as sent.

    python -m benchmarks.store [sqlite:///path | postgresql://…] …

Batches of 100, each one transaction and durable, as a coordinator under load does it. Without an address: a fresh
SQLite file in the temporary folder. The table stays in the database: name one that may be thrown away.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from uuid import UUID

from flowkit.flow.changes import AddRun, AddScope, AddTask, Change, CountTasks, SettleTask
from flowkit.flow.state import Keys, Run, Scope, Task, TaskStatus
from flowkit.store import Store, open_store
from flowkit.store.protocol import Transaction

BATCH = 100
STEPS = 100
OUTPUTS = b'{"result": 3, "padding": "' + b"x" * 64 + b'"}'


def new_id() -> UUID:
    return UUID(bytes=os.urandom(16), version=4)


async def begin(store: Store, runs: list[str]) -> list[tuple[str, UUID]]:
    heads = [(run_id, new_id()) for run_id in runs]
    changes: list[Change] = []
    for run_id, task_id in heads:
        changes += [
            AddRun(Run(id=run_id, node="add", started_at=time.time(), tasks=1)),
            AddScope(Scope(run_id=run_id, path="", parent=None, outstanding=1)),
            AddTask(
                Task(run_id=run_id, id=task_id, path="0", scope="", node="add", inputs=OUTPUTS, created_at=time.time())
            ),
        ]
    await store.transact(lambda tx: tx.write(changes))
    return heads


async def measure(url: str, *, whole: bool) -> float:
    """Microseconds for each result; ``whole`` is the path of a coordinator, else the rows alone."""
    store = await open_store(url)
    runs = [f"bench-{os.urandom(8).hex()}" for _ in range(BATCH)]
    heads = await begin(store, runs)
    path = "0"
    begun = time.perf_counter()
    for step in range(STEPS):
        path += ".0"
        fresh = [(run_id, new_id()) for run_id, _ in heads]

        def batch(tx: Transaction, done=heads, new=fresh, path=path, step=step) -> None:  # noqa: ANN001
            now = tx.now()
            if whole:
                tx.load(Keys(frozenset(run_id for run_id, _ in done), frozenset(), frozenset(done), frozenset()))
                tx.mark_sent([(run_id, task_id, 1) for run_id, task_id in done], now)
            changes: list[Change] = []
            for (run_id, task_id), (_, child) in zip(done, new, strict=True):
                changes += [
                    SettleTask(run_id=run_id, task_id=task_id, status=TaskStatus.SUCCEEDED, attempt=1, outputs=OUTPUTS,
                               nodes=b'["add"]', started_at=now, finished_at=now, worker="bench"),
                    AddTask(Task(run_id=run_id, id=child, path=path, scope="", node="add", inputs_from=task_id,
                                 created_at=now)),
                    CountTasks(run_id=run_id, tasks=step + 2),
                ]  # fmt: skip
            tx.write(changes)
            if whole:
                tx.sendables(new)

        await store.transact(batch)
        heads = fresh
    spent = time.perf_counter() - begun
    await store.close()
    return spent / (BATCH * STEPS) * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for url in sys.argv[1:] or [f"sqlite:///{folder}/flowkit.db"]:
            for whole, name in ((False, "rows alone"), (True, "with load, sent marks and sendables")):
                cost = asyncio.run(measure(url, whole=whole))
                print(f"{url.split('://')[0]:12} {name:40} {cost:6.1f} µs a result  {1e6 / cost:8,.0f} results/s")


if __name__ == "__main__":
    main()

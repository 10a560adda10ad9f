"""A fresh store of every kind, and rows to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flowkit.flow import changes as c
from flowkit.flow import events as e
from flowkit.flow.state import Keys, Run, Scope, State, Task, TaskStatus
from flowkit.store import Store, open_store

NUL = "a\x00b\u2028é"
ODD = b'{"text":"\\u0000","raw":"\x00\xff"}'


@pytest.fixture(params=["sqlite", "memory", "postgres", "pgbouncer"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh store."""
    if request.param in ("postgres", "pgbouncer"):
        return request.getfixturevalue("postgres_database" if request.param == "postgres" else "pooled_database")
    return f"sqlite:///{tmp_path}/flowkit.db" if request.param == "sqlite" else "sqlite://"


class Clock:
    """Unix seconds as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(url: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await open_store(url, clock=clock)
    yield opened
    await opened.close()


def task(run_id: str, path: str = "0", **fields: object) -> Task:
    given = {"id": uuid4(), "scope": "", "node": "add", "inputs": b'{"a":1}', "created_at": 1000.0}
    return Task(run_id=run_id, path=path, **(given | fields))


def attempts(*events: e.Event) -> set[tuple[UUID, int]]:
    """The cancelled attempts that these events list."""
    assert all(isinstance(event, e.AttemptsCancelled) for event in events)
    return {attempt for event in events for attempt in event.attempts}


def begun(run_id: str = "r", *, outstanding: int = 1, **fields: object) -> tuple[Task, list[c.Change]]:
    """A run with its first task."""
    root = task(run_id, **fields)
    return root, [
        c.AddRun(Run(id=run_id, node=root.node, started_at=1000.0, tasks=1, tags=b'{"k":"v"}')),
        c.AddScope(Scope(run_id=run_id, path="", parent=None, outstanding=outstanding)),
        c.AddTask(root),
    ]


def settled(of: Task, status: TaskStatus = TaskStatus.SUCCEEDED, **fields: object) -> c.SettleTask:
    given = {"attempt": of.attempt, "outputs": b"{}"} | fields
    return c.SettleTask(run_id=of.run_id, task_id=of.id, status=status, **given)


async def write(store: Store, changes: Sequence[c.Change]) -> list[e.Event]:
    return await store.transact(lambda tx: tx.write(changes))


async def load(store: Store, **keys: frozenset[object]) -> State:
    """Load what these keys name, and nothing else."""
    asked = {"runs": frozenset(), "roots": frozenset(), "tasks": frozenset(), "scopes": frozenset()} | keys
    return await store.transact(lambda tx: tx.load(Keys(**asked)))


async def loaded(store: Store, *tasks: Task) -> list[Task]:
    state = await load(store, tasks=frozenset((t.run_id, t.id) for t in tasks))
    return [state.tasks[t.run_id, t.id] for t in tasks]

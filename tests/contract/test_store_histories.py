"""Whatever happens to a run, in whatever order: the store agrees with rows in memory, and the run can be ended well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.coordinator.commit import commit
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus, Scope, Task, TaskStatus
from flowkit.store import Inline, Store, open_store
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait, wrap
from tests.contract.stores import Clock, load
from tests.flow.rows import Rows

Draw = Callable[[st.SearchStrategy], object]
RUN = "r"
SENT = (TaskStatus.QUEUED, TaskStatus.RUNNING)
OPS = ("done", "failed", "retry", "returned", "sent", "pause", "resume", "again", "time", "signal")

windows = st.none() | st.integers(1, 2)
timeouts = st.none() | st.sampled_from([7.0, 31.0])
plans = st.recursive(
    st.just(("leaf",)),
    lambda inner: st.one_of(
        st.tuples(st.just("names"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("gather"), st.lists(inner, max_size=4), inner, st.booleans(), windows, timeouts),
        st.tuples(st.just("delay"), inner, st.sampled_from([5.0, 60.0])),
        st.tuples(st.just("wait"), inner, timeouts, st.booleans()),
    ),
    max_leaves=10,
)


def items(plan: object) -> list[object]:
    """What a task with this plan returns; the plan of each child travels in its inputs."""
    match plan:
        case ("names", children):
            return [send(child) for child in children]
        case ("gather", children, then, exceptions, window, timeout):
            words = {"return_exceptions": exceptions, "max_concurrency": window, "timeout": timeout}
            return [Gather([send(child) for child in children], then=send(then), **words)]
        case ("delay", inner, seconds):
            return [Send("n", {"plan": inner}, delay=seconds)]
        case ("wait", inner, timeout, otherwise):
            return [Wait("go", then=send(inner), timeout=timeout, on_timeout=send(inner) if otherwise else None)]
    return []


def send(plan: object) -> Send:
    return Send("n", {"plan": plan})


class History:
    """One run in a store and in rows in memory, to which the same happens."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock, self.rows = store, clock, Rows()
        self.clock.now = self.rows.now = 1000.0

    async def feed(self, *events: Event) -> None:
        await self.store.transact(lambda tx: commit(tx, events, secret=b"secret", limits=Limits()))
        self.rows.feed(*events)

    async def command(self, kind: str, **words: object) -> None:
        await self.feed(Commanded(wire.Command(id=uuid4(), kind=kind, run_id=RUN, **words)))

    async def report(self, task: Task, **words: object) -> None:
        await self.feed(Reported(wire.Result(task_id=task.id, run_id=RUN, attempt=task.attempt, **words)))

    async def done(self, task: Task) -> None:
        plan = self.rows.inputs(task.path).get("plan", ("leaf",))
        await self.report(task, nodes=tuple(map(wrap, items(plan))), outputs={"at": task.path})

    async def sent(self, task: Task) -> None:
        """The broker confirmed it."""
        now = self.clock.now
        await self.store.transact(lambda tx: tx.mark_sent([(RUN, task.id, task.attempt)], now))
        self.rows.tasks[RUN, task.id] = task._replace(sent_at=now)

    async def time(self, seconds: float) -> None:
        """As timers do: what is due is released, what is over expires."""
        self.clock.now += seconds
        self.rows.now = self.clock.now
        released = await self.store.transact(lambda tx: tx.release_due(tx.now(), 100, {}))
        for one in released.tasks:
            task = self.rows.tasks[RUN, one.task_id]
            assert (task.status, task.due is not None and task.due <= self.clock.now) == (TaskStatus.HELD, True)
            self.rows.tasks[RUN, one.task_id] = task._replace(status=TaskStatus.QUEUED, held_for=None, due=None)
        for event in await self.store.transact(lambda tx: tx.expired(tx.now(), 100)):
            await self.feed(event)

    def out(self) -> list[Task]:
        """What a worker may have."""
        return [task for task in map(self.rows.at, self.rows.outstanding()) if task.status in SENT]

    async def step(self, draw: Draw) -> None:
        op, out = draw(st.sampled_from(OPS)), self.out()
        if op in ("pause", "resume"):
            await self.command(op)
        elif op == "again":
            await self.command("retry")
        elif op == "signal":
            await self.command("signal", name="go")
        elif op == "time":
            await self.time(draw(st.sampled_from([1.0, 6.0, 40.0])))
        elif out:
            task = draw(st.sampled_from(out))
            match op:
                case "done":
                    await self.done(task)
                case "failed":
                    await self.report(task, status="failed")
                case "retry":
                    await self.report(task, status="retry", retry_in=20)
                case "returned":
                    await self.report(task, status="returned")
                case "sent":
                    await self.sent(task)

    async def end_well(self) -> None:
        """Nothing goes wrong any more."""
        for _ in range(2_000):
            run = self.rows.runs[RUN]
            if run.status is RunStatus.SUCCEEDED:
                return
            if run.status is RunStatus.PAUSED:
                await self.command("resume")
            elif run.status is RunStatus.FAILED:
                await self.command("retry")
            elif out := self.out():
                await self.done(out[0])
            elif any(task.status is TaskStatus.WAITING for task in self.rows.tasks.values()):
                await self.command("signal", name="go")
            else:
                due = [task.due for task in self.rows.tasks.values() if task.due and task.status is TaskStatus.HELD]
                assert due, f"nothing goes on by itself: {self.rows.outstanding()}"
                await self.time(max(0, min(due) - self.clock.now))
            await self.compare()
        raise AssertionError("it never ends")

    async def compare(self) -> None:
        assert await self.store.transact(lambda tx: tx.recount()) == 0, "a counter says something else than the rows"
        keys = frozenset((RUN, task_id) for _, task_id in self.rows.tasks)
        state = await load(self.store, runs=frozenset({RUN}), tasks=keys, scopes=frozenset(self.rows.scopes))
        assert state.runs[RUN].status == self.rows.runs[RUN].status
        for key, task in self.rows.tasks.items():
            assert bare(state.tasks[key]) == bare(task)
        for row in await self.store.query(lambda queries: queries.tasks(RUN)):
            ended = not TaskStatus(row.status).outstanding
            assert (row.finished_at is not None) == ended, "a task has ended when it is said when"
        for key, scope in self.rows.scopes.items():
            assert counted(state.scopes[key]) == counted(scope)


def bare(task: Task) -> tuple[object, ...]:
    held = (task.held_for, task.due) if task.status.outstanding else ()
    return (task.path, task.status, task.attempt, task.tries, task.leaf_of, *held)


def counted(scope: Scope) -> tuple[object, ...]:
    return (scope.path, scope.status, scope.outstanding, scope.due)


def test_any_history() -> None:
    """On SQLite, many times; the cases elsewhere are those that matter, on every store."""
    with asyncio.Runner() as runner:

        async def live(plan: object, steps: int, draw: Draw) -> None:
            clock = Clock()
            store = await open_store("sqlite://", executor=Inline(), clock=clock)
            history = History(store, clock)
            await history.feed(Started(RUN, wire.Start(node="n", run_id=RUN, inputs={"plan": plan})))
            for _ in range(steps):
                await history.step(draw)
                await history.compare()
            await history.end_well()
            await store.close()

        @settings(max_examples=150, deadline=None)
        @given(plans, st.integers(0, 25), st.data())
        def check(plan: object, steps: int, data: st.DataObject) -> None:
            runner.run(live(plan, steps, data.draw))

        check()

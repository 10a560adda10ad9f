"""What one step costs a coordinator, without AMQP: decode, load, advance, write, commit, encode the next task.

    python -m benchmarks.coordinator_cost [sqlite | postgresql | ADDRESS]… [--seconds 5] [--together 200] [--bundle 1]

Five-step chains, so many of them at once, go through the real intakes, ledger and outbox of a coordinator over a store
on disk (SQLite: synchronous=FULL). The broker and the workers are a mirror in memory: it answers each task that is
published with the message that a worker sends, and its own time is taken off. Printed are CPU microseconds a step
(of the loop's thread, and of the store's), how large the batches became by themselves, the statements of each batch,
and where the time goes: samples of the CPU clock, by the file that was at work. Then Gathers, from start to end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from flowkit.broker.protocol import Delivery, Outgoing
from flowkit.client.ids import new_run_id
from flowkit.coordinator.intake import Intake
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.reading import Reader
from flowkit.errors import PublishError
from flowkit.flow.limits import Limits
from flowkit.store import Store, open_store
from flowkit.store.inline import Inline
from flowkit.store.sqlstore import SqlStore
from flowkit.wire import messages as wire
from flowkit.wire.topology import Queue, Topology

STEPS = 5
GATHERS = (1_000, 10_000)
PADDING = "x" * 64
VERBS = ("insert", "update", "delete", "lookup", "first", "select", "execute")
GROUPS = {  # the end of a file's name, or a folder in it -> what its time is
    "store/sqlite.py": "SQL, rows in and out of the driver",
    "store/postgres.py": "SQL, rows in and out of the driver",
    "/psycopg/": "SQL, rows in and out of the driver",
    "store/attempt.py": "commit",
    "wire/codec.py": "JSON",
    "/pydantic/": "pydantic",
    "wire/messages.py": "pydantic",
    "wire/items.py": "pydantic",
    "flowkit/flow/": "advance and fold",
    "coordinator/commit.py": "advance and fold",
    "flowkit/store/": "rows and objects",
    "coordinator/outbox.py": "messages of tasks",
    "flowkit/coordinator/": "reading, ledger, intake",
    "/asyncio/": "asyncio",
    "benchmarks/": "the mirror (not counted above)",
}


class Mirror:
    """Broker and workers in one: what is published comes back answered. Its own CPU seconds are in ``spent``."""

    generation = 1
    connected = True

    def __init__(self, topology: Topology, bundle: int = 1) -> None:
        self._tasks, self._runs, self._bundle = topology.name("tasks"), topology.name("runs"), bundle
        self.starts, self.results = Tray(topology.starts), Tray(topology.results)
        self.spent = 0.0
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.tasks = 0

    def consume(self, queue: Queue, **_: object) -> Tray:
        """The tray of starts, or of results."""
        return self.starts if queue.name == self.starts.queue.name else self.results

    async def declare(self, _: object) -> list[object]:
        """All is there."""
        return []

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Answer tasks, and take note of runs that have ended."""
        began = time.thread_time()
        answers = []
        for message in messages:
            if message.exchange == self._tasks:
                answers.append(_answer(orjson.loads(message.body)))
            elif message.exchange == self._runs:
                self.ended.put_nowait(message.correlation_id or "")
        self.tasks += len(answers)
        if self._bundle > 1:
            answers = [b"[%b]" % b",".join(answers[n : n + self._bundle]) for n in range(0, len(answers), self._bundle)]
        self.results.put(answers)
        self.spent += time.thread_time() - began
        return [None] * len(messages)

    def start(self, runs: int, node: str, inputs: dict[str, Any]) -> None:
        """Ask for so many runs."""
        began = time.thread_time()
        self.starts.put([wire.Start(node=node, inputs=inputs, run_id=new_run_id()).encode() for _ in range(runs)])
        self.spent += time.thread_time() - began


class Plain:
    """What stands beside a body here: nothing that says more."""

    message_type = message_id = correlation_id = app_id = user_id = None
    headers: Mapping[str, Any] = {}


class Tray:
    """A queue of ready deliveries."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.sizes: list[int] = []
        self._ready: list[Delivery] = []
        self._some = asyncio.Event()
        self._tag = 0

    def put(self, bodies: Sequence[bytes]) -> None:
        """These have arrived."""
        for body in bodies:
            self._tag += 1
            self._ready.append(Delivery(self.queue.name, body, self._tag, properties=Plain))
        self._some.set()

    async def receive(self, limit: int) -> list[Delivery]:
        """What is there, as a consumer gives it."""
        while not self._ready:
            self._some.clear()
            await self._some.wait()
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        self.sizes.append(len(taken))
        return taken

    async def ack(self, _: Sequence[Delivery]) -> None:
        """Nothing is delivered twice here."""


def _answer(task: dict[str, Any]) -> bytes:
    """What a worker says of a task: a chain goes on until n is 1, ``split`` gathers n."""
    node, inputs = task["node"], task["inputs"]
    nodes: list[Any] = []
    outputs: dict[str, Any] = {"padding": PADDING}
    match node:
        case "step" if inputs["n"] > 1:
            nodes, outputs = ["step"], {"n": inputs["n"] - 1, "padding": PADDING}
        case "split":
            sends = [{"node": "part", "inputs": {"number": number}} for number in range(inputs["n"])]
            nodes = [{"gather": {"sends": sends, "then": "join"}}]
    now = wire.rfc3339(time.time())
    return orjson.dumps(
        {
            "task_id": task["task_id"], "run_id": task["run_id"], "node": node, "attempt": task["attempt"],
            "status": "succeeded", "nodes": nodes, "outputs": outputs, "message": "done", "started_at": now,
            "finished_at": now, "worker": "mirror-1", "v": 1,
        }
    )  # fmt: skip


@dataclass(slots=True)
class Bench:
    """A coordinator's path over a store, without its clockwork."""

    store: Store
    mirror: Mirror
    ledger: Ledger
    intakes: list[Intake] = field(default_factory=list)

    @classmethod
    def over(cls, store: Store, bundle: int = 1) -> Bench:
        """With intakes for starts and results, as a coordinator has them."""
        topology = Topology("bench")
        mirror = Mirror(topology, bundle)
        ledger = Ledger(store, Limits(), b"secret" * 6)
        outbox = Outbox(mirror, topology, ledger, max_nodes=10)
        intakes = [
            Intake(queue, broker=mirror, topology=topology, ledger=ledger, outbox=outbox, reader=Reader(topology),
                   batch=200, early=1)
            for queue in (topology.results, topology.starts)
        ]  # fmt: skip
        return cls(store, mirror, ledger, intakes)

    async def chains(self, together: int, seconds: float) -> int:
        """Keep so many chains under way for so long; returns how many steps were taken."""
        until, before = time.perf_counter() + seconds, self.mirror.tasks
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(intake.run()) for intake in self.intakes]
            loops.append(group.create_task(self.ledger.flush()))
            self.mirror.start(together, "step", {"n": STEPS, "padding": PADDING})
            under_way = together
            while under_way:
                await self.mirror.ended.get()
                gone = 1
                while not self.mirror.ended.empty():
                    self.mirror.ended.get_nowait()
                    gone += 1
                if time.perf_counter() < until:
                    self.mirror.start(gone, "step", {"n": STEPS, "padding": PADDING})
                else:
                    under_way -= gone
            for loop in loops:
                loop.cancel()
        return self.mirror.tasks - before

    async def gather(self, wide: int) -> float:
        """Seconds from a start over so many branches to the end of the run."""
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(intake.run()) for intake in self.intakes]
            began = time.perf_counter()
            self.mirror.start(1, "split", {"n": wide})
            await self.mirror.ended.get()
            spent = time.perf_counter() - began
            for loop in loops:
                loop.cancel()
        return spent


async def cost(url: str, together: int, seconds: float, bundle: int) -> str:
    """CPU microseconds a step, and how large the batches became."""
    store = await open_store(url)
    bench = Bench.over(store, bundle)
    await bench.chains(together, min(seconds, 0.5))  # warm
    bench.mirror.spent = 0
    bench.mirror.results.sizes.clear()
    began, loop, thread = time.perf_counter(), time.thread_time(), await store.transact(_thread_time)
    steps = await bench.chains(together, seconds)
    wall, loop = time.perf_counter() - began, time.thread_time() - loop - bench.mirror.spent
    thread = await store.transact(_thread_time) - thread
    await store.close()
    sizes = bench.mirror.results.sizes
    return (
        f"{(loop + thread) / steps * 1e6:6.1f} µs CPU a step: loop {loop / steps * 1e6:5.1f}, store "
        f"{thread / steps * 1e6:5.1f}; wall {wall / steps * 1e6:6.1f} µs, {steps:,} steps, "
        f"results in a batch {sum(sizes) / len(sizes):.0f}"
    )


def _thread_time(_: object) -> float:
    return time.thread_time()


async def statements(url: str, together: int, seconds: float) -> Counter[str]:
    """Statements of all the batches of some chains, and under ``BEGIN`` how many batches these were."""
    store = await open_store(url)
    assert isinstance(store, SqlStore)
    counted: Counter[str] = Counter()
    database = store._database  # noqa: SLF001 - to count what passes

    def count(verb: str, call: Any) -> Any:
        def counting(*given: Any, **named: Any) -> Any:
            table = given[1] if verb in {"lookup", "first"} else given[0].partition(" WHERE")[0][:60]
            counted[f"{verb} {table}"] += 1
            return call(*given, **named)

        return counting

    for verb in VERBS:
        setattr(database, verb, count(verb, getattr(database, verb)))
    begin = database.begin

    def counting_begin() -> None:
        counted["BEGIN"] += 1
        begin()

    database.begin = counting_begin  # type: ignore[method-assign]
    await Bench.over(store).chains(together, seconds)
    await store.close()
    return counted


async def shares(url: str, together: int, seconds: float) -> list[tuple[str, float]]:
    """Where the time goes, all in one thread, sampled every millisecond of CPU time."""
    store = await open_store(url, executor=Inline())
    bench = Bench.over(store)
    await bench.chains(together, min(seconds, 0.3))
    seen: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        while frame is not None:  # the innermost file that is known: what the standard library does is its caller's
            for end, group in GROUPS.items():
                if end in frame.f_code.co_filename:
                    seen[group] += 1
                    return
            frame = frame.f_back
        seen["else"] += 1

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        await bench.chains(together, seconds)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    await store.close()
    total = sum(count for group, count in seen.items() if "mirror" not in group)
    return [(group, count / total) for group, count in seen.most_common() if "mirror" not in group]


async def gathers(url: str, wides: Sequence[int] = GATHERS) -> list[tuple[int, float]]:
    """Seconds of a Gather of so many, start to end."""
    store = await open_store(url)
    bench = Bench.over(store)
    await bench.gather(10)
    spent = [(wide, await bench.gather(wide)) for wide in wides]
    await store.close()
    return spent


def main() -> None:
    """Measure each store in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", default=["sqlite"])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--together", type=int, default=200)
    parser.add_argument("--bundle", type=int, default=1)
    parser.add_argument("--only", choices=["cost", "statements", "shares", "gathers"])
    given = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as `flowkit coordinator` does
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        for number, name in enumerate(given.stores):
            url = {"sqlite": f"sqlite:///{folder}/{number}.db", "postgresql": ""}.get(name, name)
            if not url:
                from tests.services.postgres import database, server

                url = stack.enter_context(database(stack.enter_context(server())))
            print(f"{name}, {given.together} chains at once")
            if given.only in (None, "cost"):
                print("  " + asyncio.run(cost(url, given.together, given.seconds, given.bundle)))
            if given.only in (None, "statements"):
                counted = asyncio.run(statements(url, given.together, 1))
                batches = counted.pop("BEGIN")
                print(f"  {sum(counted.values()) / batches:.1f} statements in a transaction:")
                for what, count in counted.most_common():
                    print(f"    {count / batches:5.2f}  {what}")
            if given.only in (None, "shares"):
                for group, share in asyncio.run(shares(url, given.together, given.seconds)):
                    print(f"    {share:6.1%}  {group}")
            if given.only in (None, "gathers"):
                for wide, spent in asyncio.run(gathers(url)):
                    print(f"  Gather of {wide:6,}: {spent:6.3f} s, {spent / wide * 1e6:6.1f} µs a branch")


if __name__ == "__main__":
    main()

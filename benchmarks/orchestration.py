"""What orchestration costs when there is a lot of it, beside the limits that FlowKit has set itself.

    python -m benchmarks.orchestration [finished | postgres | gather | timers | limits] …

or `make bench-orchestration`. It starts a private RabbitMQ (and PostgreSQL), fills stores with finished runs, and ends
with 1 when a limit is missed. All cases: about five minutes. What it found: docs/explanation/orchestration-numbers.md.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.finished_runs import fill
from benchmarks.house import House, house
from flowkit import Client
from flowkit.broker import open_broker
from flowkit.store import open_store
from flowkit.store.views import Queries
from flowkit.wire.topology import Topology
from tests.services import postgres
from tests.services.rabbitmq import RabbitMQ, install

NODES = """
from flowkit import Gather, Node, Send

TEXT = "x" * 170

step, wide, million, later, leaf = (Node(name) for name in ("step", "wide", "million", "later", "leaf"))
hundred, five, one = Node("hundred", limit=100), Node("five", limit=5, key="value"), Node("one", limit=1, key="number")

@step.main
async def chain():
    n = step.get_inputs()["n"]
    return ([Send("step", {"n": n - 1})] if n > 1 else []), {"n": n}, ""

@wide.main
async def fan_out():
    n, node = wide.get_inputs()["n"], wide.get_inputs()["node"]
    sends = [Send(node, {"number": number, "value": number % 100, "text": TEXT}) for number in range(n)]
    return [Gather(sends, then="leaf")], {}, ""

@million.main
async def too_many():
    return [Gather(["leaf"] * 1_000_000, then="leaf")], {}, ""

@later.main
async def all_at_once():
    inputs = later.get_inputs()
    return [Send("nobody", {"number": number}, delay=inputs["delay"]) for number in range(inputs["n"])], {}, ""

def nothing(node):
    @node.main
    async def done():
        inputs = node.get_inputs()
        return [], {"number": inputs.get("number", len(inputs.get("results", ())))}, ""

for node in (leaf, hundred, five, one):
    nothing(node)
"""
LIMITED = {"limit=100": "hundred", "limit=5, key of 100 values": "five", "limit=1, a key for each": "one"}


@dataclass(frozen=True)
class Size:
    """How much of everything; a test takes less."""

    few: int = 1_000  # finished runs
    many: int = 100_000
    rounds: int = 15
    chains: int = 40  # at once, in a round
    steps: int = 5  # of a chain
    wide: int = 10_000  # sends of a Gather
    timers: int = 10_000
    delay: float = 8.0  # seconds; longer than it takes to write them all
    waiting: tuple[int, int] = (1_000, 5_000)  # tasks of a node with limits
    asks: int = 7


class Report:
    """Prints each figure beside its limit."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.missed: list[str] = []

    def say(self, what: str, figure: str, *, limit: str = "", kept: bool = True) -> None:
        """One line; ``kept``: whether the limit was."""
        self.said.append(what)
        if not kept:
            self.missed.append(what)
        print(f"{what:<66} {figure:>26}   {limit}{'' if kept else '  MISSED'}", flush=True)


@dataclass
class Ground:
    """Where a case builds its houses."""

    broker: str
    folder: Path
    size: Size
    report: Report
    stack: ExitStack
    server: str | None = None  # a PostgreSQL; a private one where it is needed

    async def house(self, namespace: str, *, finished: int = 0, store: str | None = None) -> House:
        """A house over a store with so many finished runs; SQLite unless ``store`` names another."""
        url = store or f"sqlite:///{self.folder}/{namespace}.db"
        await fill(url, finished)
        mine = f"{namespace}-{secrets.token_hex(3)}"  # a broker that stays may have seen this benchmark before
        return self.stack.enter_context(house(self.broker, url, mine, self.folder))

    def database(self) -> str:
        """A fresh database of PostgreSQL."""
        if self.server is None:
            self.server = self.stack.enter_context(postgres.server())
        return self.stack.enter_context(postgres.database(self.server))


async def finished(ground: Ground) -> None:
    """Many finished runs on SQLite: time per step, memory of the coordinator, what people ask."""
    size, report = ground.size, ground.report
    empty, few = await ground.house("empty"), await ground.house("few", finished=size.few)
    many = await ground.house("many", finished=size.many)
    times = await _in_turn(size, [empty, few, many])
    _say_steps(report, size, "SQLite", times[0], times[2])
    before, after = (one.memory("VmRSS")["coordinator"] for one in (few, many))
    report.say(
        f"memory of the coordinator over {size.few:,} and {size.many:,}", f"{before:.1f}, {after:.1f} MB",
        limit="±10 %", kept=abs(after / before - 1) <= 0.1,
    )  # fmt: skip
    await _asked(report, size, "SQLite", many)


async def on_postgres(ground: Ground) -> None:
    """The same on PostgreSQL, but for the memory."""
    size, report = ground.size, ground.report
    houses = [
        await ground.house("pgempty", store=ground.database()),
        await ground.house("pgmany", finished=size.many, store=ground.database()),
    ]
    _say_steps(report, size, "PostgreSQL", *await _in_turn(size, houses))
    await _asked(report, size, "PostgreSQL", houses[1])


async def gather(ground: Ground) -> None:
    """A wide Gather, and one that is refused."""
    size, report = ground.size, ground.report
    at = await ground.house("gather")
    async with at.client() as client:
        await _outputs(client, "step", {"n": 3})  # imports and connections are no cost of a Gather
        idle = at.memory("VmRSS")
        took = await _wide(client, "leaf", size.wide)
        report.say(f"a Gather of {size.wide:,} sends of 200 bytes, from start to end", f"{took:.1f} s")
        for who, peak in at.memory("VmHWM").items():
            above = peak - idle[who]
            report.say(f"  most memory of the {who} above idle ({idle[who]:.0f} MB)", f"{above:.0f} MB",
                       limit="at most 100 MB", kept=above <= 100)  # fmt: skip
        before, began = at.memory("VmHWM"), time.perf_counter()
        end = await (await client.start("million")).end(timeout=60)
        took = time.perf_counter() - began
        said = end.error.message if end.error else ""
        report.say("a Gather of 1,000,000: refused in", f"{took:.2f} s", limit="names max_gather",
                   kept="max_gather" in said)  # fmt: skip
        above = at.memory("VmHWM")["coordinator"] - before["coordinator"]
        report.say("  most memory of the coordinator above that", f"{above:.1f} MB", limit="it never came there",
                   kept=above < 5)  # fmt: skip


async def timers(ground: Ground) -> None:
    """Many timers that are due at once, until the last of their messages is in its queue."""
    size = ground.size
    for kind, store in (("SQLite", None), ("PostgreSQL", ground.database())):
        late = await _late(size, await ground.house(f"timers{kind}", store=store))
        ground.report.say(f"{kind}: {size.timers:,} timers due at once: all in their queue after", f"{late:.2f} s",
                          limit="at most 5 s", kept=late <= 5)  # fmt: skip


async def limits(ground: Ground) -> None:
    """Tasks of nodes with limits, beside tasks of a node with none, for few and for many that wait."""
    for kind, store in (("SQLite", None), ("PostgreSQL", ground.database())):
        at = await ground.house(f"limits{kind}", store=store)
        async with at.client() as client:
            await _outputs(client, "step", {"n": 3})
            free = [await _step(client, "leaf", count) for count in ground.size.waiting]
            few, many = ground.size.waiting
            ground.report.say(
                f"{kind}: a task of {few:,} and of {many:,}, no limit", f"{free[0]:.2f}, {free[1]:.2f} ms"
            )
            for what, node in LIMITED.items():
                took = [await _step(client, node, count) for count in ground.size.waiting]
                ground.report.say(
                    f"  {what}", f"{took[0]:.2f}, {took[1]:.2f} ms: {took[1] / free[1]:.2f} x",
                    limit="grows by 2 at most", kept=took[1] <= 2 * took[0],  # by 5, if it looked at all that wait
                )  # fmt: skip


CASES: dict[str, Callable[[Ground], Coroutine[object, object, None]]] = {
    "finished": finished, "postgres": on_postgres, "gather": gather, "timers": timers, "limits": limits,
}  # fmt: skip


async def _late(size: Size, at: House) -> float:
    """Seconds from when they are due until the last one is in its queue."""
    store, broker, queue = await open_store(at.store), open_broker(at.broker), Topology(at.namespace).tasks("nobody")
    await broker.connect(10)
    async with at.client() as client:
        run = await client.start("later", {"n": size.timers, "delay": size.delay})
    due: set[float | None] = set()
    while not due:
        due = {task.due for task in await store.query(lambda query: query.tasks(run.id)) if task.node == "nobody"}
        await asyncio.sleep(0.1)
    (at_once,) = due
    assert at_once is not None
    if at_once <= time.time():
        raise RuntimeError("they were written too late to be due together: this machine needs a longer delay")
    await asyncio.sleep(at_once - time.time())
    while (state := await broker.inspect(queue.name)) is None or state.ready < size.timers:
        await asyncio.sleep(0.02)
    late = time.time() - at_once
    await broker.close()
    await store.close()
    return late


async def _outputs(client: Client, node: str, inputs: dict[str, object]) -> dict[str, object]:
    return await (await client.start(node, inputs)).outputs(timeout=300)


async def _wide(client: Client, node: str, count: int) -> float:
    """Seconds of a Gather from start to end."""
    began = time.perf_counter()
    assert await _outputs(client, "wide", {"n": count, "node": node}) == {"number": count}
    return time.perf_counter() - began


async def _step(client: Client, node: str, count: int) -> float:
    """Milliseconds for each task of a Gather."""
    return 1000 * await _wide(client, node, count) / count


async def _in_turn(size: Size, houses: Sequence[House]) -> list[list[float]]:
    """Milliseconds per step of chains, in every house in each round; the first two rounds do not count."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(one.client()) for one in houses]
        rounds = [[await _chains(size, client) for client in clients] for _ in range(size.rounds + 2)]
    return [list(column) for column in zip(*rounds[2:], strict=True)]


async def _chains(size: Size, client: Client) -> float:
    began = time.perf_counter()
    runs = await client.start_many("step", [{"n": size.steps}] * size.chains)
    await asyncio.gather(*(run.outputs(timeout=120) for run in runs))
    return 1000 * (time.perf_counter() - began) / (size.steps * size.chains)


def _say_steps(report: Report, size: Size, kind: str, empty: list[float], many: list[float]) -> None:
    ratio = statistics.median(b / a for a, b in zip(empty, many, strict=True))
    report.say(
        f"{kind}: a step over an empty store, over {size.many:,} finished runs",
        f"{statistics.median(empty):.2f}, {statistics.median(many):.2f} ms: {ratio:.2f} x",
        limit="at most 1.2 x", kept=ratio <= 1.2,
    )  # fmt: skip


async def _asked(report: Report, size: Size, kind: str, at: House) -> None:
    """What people ask: the verb from shell to prompt, and the query alone."""
    async with at.client(listen=False) as client:
        await client.start("nobody", id="stuck")
    store = await open_store(at.store, upgrade=False)
    while await store.query(lambda query: query.run("stuck")) is None:
        await asyncio.sleep(0.05)
    verbs: dict[str, Callable[[Queries], object]] = {
        "runs list": lambda query: query.runs(limit=20),
        "runs list --status running": lambda query: query.runs(limit=20, status="running"),
        "runs list --status failed --node order": lambda query: query.runs(limit=20, status="failed", node="order"),
        "runs list --node nobody": lambda query: query.runs(limit=20, node="nobody"),
        "runs list --tag tenant=t7": lambda query: query.runs(limit=20, tags={"tenant": "t7"}),
        "runs list --tag tenant=none": lambda query: query.runs(limit=20, tags={"tenant": "none"}),
        "runs explain finished-0000000": lambda query: (query.run("finished-0000000"), query.tasks("finished-0000000")),
        "runs explain stuck": lambda query: (query.run("stuck"), query.tasks("stuck")),
    }
    for verb, ask in verbs.items():
        began = time.perf_counter()
        await store.query(ask)
        alone = time.perf_counter() - began
        took = min(at.ask(*verb.split()) for _ in range(size.asks))  # of several, for a machine is rarely idle
        report.say(f"{kind}: flowkit {verb} (the query alone)", f"{took:.2f} s ({1000 * alone:.1f} ms)",
                   limit="under 0.3 s", kept=took < 0.3)  # fmt: skip
    await store.close()


def measure(cases: Sequence[str], size: Size, report: Report) -> None:
    """Run these cases, each in houses of its own on one private RabbitMQ."""
    if not install():
        sys.exit("this needs RabbitMQ's own programs: apt-get install rabbitmq-server")
    broker = RabbitMQ()
    try:
        broker.start()
        with tempfile.TemporaryDirectory() as name:
            Path(name, "nodes.py").write_text(NODES)
            for case in cases:
                with ExitStack() as stack:
                    asyncio.run(CASES[case](Ground(broker.url, Path(name), size, report, stack)))
    finally:
        broker.close()


def main(cases: Sequence[str]) -> int:
    """Measure; 1 when a limit was missed."""
    unknown = set(cases) - set(CASES)
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}. There are {', '.join(CASES)}.")
    report = Report()
    measure(cases or list(CASES), Size(), report)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

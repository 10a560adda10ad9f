"""All scenarios: what each is called, whom it measures, and what its table shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.finished_runs import fill
from benchmarks.ground import Ground
from benchmarks.peers.celery.case import CELERY
from benchmarks.peers.dramatiq.case import DRAMATIQ
from benchmarks.peers.faststream.case import FASTSTREAM
from benchmarks.peers.flowkit.case import CLIENTS, FLOWKITS, FlowKit
from benchmarks.peers.taskiq.case import TASKIQ
from benchmarks.peers.work import Work
from benchmarks.raw.case import RAW
from benchmarks.scenarios.case import Case
from benchmarks.scenarios.drain import Drain
from benchmarks.scenarios.one_by_one import OneByOne
from benchmarks.scenarios.queued import Queued
from benchmarks.scenarios.startup import StartUp, Verb
from benchmarks.system import System

SYSTEMS: Sequence[System] = (*FLOWKITS, *CLIENTS, RAW, *CELERY, *DRAMATIQ, *TASKIQ, *FASTSTREAM)
KiB = 1024
STEPS = 5  # of a chain


@dataclass(frozen=True)
class Size:
    """How much of everything; a test takes less."""

    chains: int = 2_000
    singles: int = 10_000
    width: int = 1_000
    wider: int = 10_000
    idle: int = 40  # chains, one after the other
    middling: int = 400  # chains of 10 KiB
    large: int = 20  # chains of 1 MiB
    chatty: int = 4_000  # tasks that log
    queued: tuple[int, int] = (1_000, 100_000)  # chains
    window: int = 10_000  # steps of them
    finished: int = 100_000  # runs in the store


@dataclass(frozen=True)
class Scenario:
    """Something to be measured.

    Args:
        name: a word for the command line.
        title: above its table.
        shows: figures with their headings, in the order of the columns; the first one ranks.
        cases: makes its cases on a ground for the systems that were chosen.
        least: whether less of the first figure is better.
        rounds: at most so many, where one takes long.
    """

    name: str
    title: str
    shows: Sequence[tuple[str, str]]
    cases: Callable[[Ground, Size, Sequence[System]], Iterable[Case]]
    least: bool = False
    rounds: int = 99


def _only(systems: Sequence[System], kind: str, *names: str) -> Iterator[System]:
    """Those of the chosen systems that can do it; of all, or of these names."""
    return (one for one in systems if kind in one.kinds and (not names or one.name in names))


BEST = ("raw", "flowkit-sqlite", "celery-best", "dramatiq-best", "taskiq-best", "faststream-best")
SAFE = ("flowkit-postgres", "celery-safe", "dramatiq-safe", "taskiq-safe", "faststream-safe")


def _chains(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("chain", size.chains, steps=STEPS)
    return (Drain(ground, one, work) for one in _only(systems, "chain"))


def _singles(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("nothing", size.singles)
    return (Drain(ground, one, work) for one in _only(systems, "nothing", *BEST, "flowkit-sqlite-2"))


def _wide(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("wide", 2, width=size.width, one_by_one=True)
    return (OneByOne(ground, one, work) for one in _only(systems, "wide", *BEST, "flowkit-postgres"))


def _wider(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("wide", 1, width=size.wider, one_by_one=True)
    return (OneByOne(ground, one, work) for one in _only(systems, "wide", "flowkit-sqlite", "flowkit-postgres"))


def _idle(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("chain", size.idle, steps=STEPS, one_by_one=True)
    return (OneByOne(ground, one, work) for one in _only(systems, "chain", *BEST, *SAFE))


def _middling(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("chain", size.middling, steps=STEPS, size=10 * KiB)
    return (Drain(ground, one, work) for one in _only(systems, "chain", *BEST))


def _large(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("chain", size.large, steps=STEPS, size=KiB * KiB)
    return (Drain(ground, one, work) for one in _only(systems, "chain", *BEST))


def _queued(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    few, many = size.queued
    steps = 2 * size.window // few  # so that few of them last for the whole window
    for one in _only(systems, "chain", "flowkit-sqlite"):
        for count in (few, many):
            yield Queued(ground, one, Work("chain", count, steps=steps), f"{count:,} queued", window=size.window)


def _finished(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    work = Work("chain", size.chains, steps=STEPS)
    for one in _only(systems, "chain", "flowkit-sqlite"):
        assert isinstance(one, FlowKit)
        for count in (0, size.finished):
            store = ground.folder / f"finished-{count}.db"
            asyncio.run(fill(f"sqlite:///{store}", count))
            yield Drain(ground, replace(one, finished=store), work, f"{count:,} finished runs")


def _startup(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    del size
    for one in _only(systems, "nothing", *BEST[1:]):
        yield StartUp(ground, one, Work("nothing", 1))
    if any(isinstance(one, FlowKit) for one in systems):
        yield Verb(["--help"])
        yield Verb(["run", "add", "-F", "a=1", "-F", "b=2"])


def _logs(ground: Ground, size: Size, systems: Sequence[System]) -> Iterator[Case]:
    for one in _only(systems, "chatty", "flowkit-sqlite"):
        yield Drain(ground, one, Work("nothing", size.chatty), "no line")
        yield Drain(ground, one, Work("chatty", size.chatty), "ten lines for each task")


RATE = ("per_second", "steps/s")
CPU = ("cpu_us", "CPU µs/step")
TASKS = (("per_second", "tasks/s"), ("cpu_us", "CPU µs/task"))
LATENCY = (("p50_ms", "p50 ms"), ("p90_ms", "p90 ms"))
# Those with a target first: when the time is up, the others have one round each.
SCENARIOS = (
    Scenario("chain", f"Chains of {STEPS} steps, started at once", (RATE, CPU), _chains),
    Scenario("wide", "1 → 1,000 → 1", (("p50_ms", "ms"), CPU), _wide, least=True),
    Scenario("wider", "1 → 10,000 → 1", (("p50_ms", "ms"), CPU), _wider, least=True),
    Scenario("queued", "A step while others are queued", (("step_us", "µs/step"), CPU), _queued, least=True, rounds=2),
    Scenario("finished", "A step over finished runs in the store", (RATE, CPU), _finished),
    Scenario("singles", "Single tasks from a full queue, one worker", TASKS, _singles),
    Scenario("idle", f"One chain of {STEPS} steps on an idle system", LATENCY, _idle, least=True),
    Scenario("10-kib", f"Chains of {STEPS} steps, payloads of 10 KiB", (RATE, CPU), _middling),
    Scenario("1-mib", f"Chains of {STEPS} steps, payloads of 1 MiB", (RATE, CPU), _large),
    Scenario("startup", "From the shell to the first executed task", (("seconds", "seconds"), ("mb", "MB")), _startup,
             least=True),
    Scenario("logs", "Tasks that log", TASKS, _logs),
)  # fmt: skip

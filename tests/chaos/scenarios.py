"""The faults, one function each. ``rounds`` is how often it strikes; the small version strikes once."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import psycopg

from flowkit.broker import open_broker
from flowkit.client import Client
from flowkit.wire.topology import Topology
from tests.chaos.stage import PATIENCE, Figures, Place, Stage, go_on, said, stage, stop, until
from tests.chaos.store_faults import commit_answers_lost, store_cut_off
from tests.services.pgbouncer import pooler
from tests.services.postgres import database
from tests.services.proxy import Proxy

Scenario = Callable[[Place, int], Awaitable[Figures]]
FULL = str(Path(__file__).with_name("full.py"))  # a coordinator whose store may be full
ROOM = "1000000"  # pages


async def worker_killed(place: Place, rounds: int) -> Figures:
    """kill -9 of one of two workers, again and again."""
    async with stage("worker killed", place.folder, place.namespace, place.rabbit.url, workers=2) as here:
        for number in range(rounds):
            await here.progress()
            await (victim := here.workers[number % 2]).kill()
            await here.replace(victim)
            await here.recovered()
        return await here.conclude()


async def coordinator_killed(place: Place, rounds: int) -> Figures:
    """kill -9 of the one coordinator on SQLite, again and again."""
    async with stage("coordinator killed", place.folder, place.namespace, place.rabbit.url) as here:
        for _ in range(rounds):
            await here.progress()
            await (victim := here.coordinators[0]).kill()
            await here.replace(victim)
            await here.recovered()
        return await here.conclude()


async def one_of_two_coordinators_killed(place: Place, rounds: int) -> Figures:
    """kill -9 of one of two coordinators on PostgreSQL, again and again."""
    with database(place.postgres().url) as store:
        async with stage("one of two coordinators killed (PostgreSQL)", place.folder, place.namespace,
                         place.rabbit.url, store=store, coordinators=2) as here:  # fmt: skip
            for number in range(rounds):
                await here.progress()
                await (victim := here.coordinators[number % 2]).kill()
                await here.recovered()
                await here.replace(victim)
            return await here.conclude()


async def broker_restarted(place: Place, rounds: int) -> Figures:
    """The broker stops and starts."""
    async with stage("broker restarted", place.folder, place.namespace, place.rabbit.url) as here:
        for _ in range(rounds):
            await here.progress()
            await asyncio.to_thread(place.rabbit.restart)
            await here.recovered()
        return await here.conclude()


async def broker_killed(place: Place, rounds: int) -> Figures:
    """kill -9 of the broker."""
    async with stage("broker killed", place.folder, place.namespace, place.rabbit.url) as here:
        for _ in range(rounds):
            await here.progress()
            await asyncio.to_thread(place.rabbit.kill)
            await asyncio.to_thread(place.rabbit.start)
            await here.recovered()
        return await here.conclude()


async def broker_wiped(place: Place, rounds: int) -> Figures:
    """The broker comes back without any of its data; signals and starts nobody had read are said again by clients."""
    async with stage("broker wiped", place.folder, place.namespace, place.rabbit.url,
                     load={"signal_again": True}) as here:  # fmt: skip
        return await _wiped(here, place, rounds)


async def broker_wiped_under_two_coordinators(place: Place, rounds: int) -> Figures:
    """The same with two coordinators on PostgreSQL: one has all sent again, the other one may know nothing of it."""
    with database(place.postgres().url) as store:
        async with stage("broker wiped under two coordinators (PostgreSQL)", place.folder, place.namespace,
                         place.rabbit.url, store=store, coordinators=2,
                         load={"signal_again": True}) as here:  # fmt: skip
            return await _wiped(here, place, rounds)


async def _wiped(here: Stage, place: Place, rounds: int) -> Figures:
    for _ in range(rounds):
        await here.progress()
        await asyncio.to_thread(place.rabbit.kill)
        place.rabbit.wipe()
        await asyncio.to_thread(place.rabbit.start)
        await here.recovered()
    return await here.conclude(dead=("refused",), wiped=True)  # signals that were said once too often


async def worker_stopped(place: Place, rounds: int) -> Figures:
    """SIGSTOP of one of two workers, until the broker has given its tasks to the other one; then SIGCONT."""
    async with stage("worker stopped and woken", place.folder, place.namespace, place.rabbit.url, workers=2) as here:
        for number in range(rounds):
            await here.progress()
            stop(victim := here.workers[number % 2])
            losses = said(victim, "lost:")
            await asyncio.sleep(7)  # three times its heartbeat: what is waited for is that nothing comes
            go_on(victim)
            await until(lambda victim=victim, losses=losses: said(victim, "lost:") > losses, "it to notice")
            await here.recovered()
        return await here.conclude()


async def coordinator_stopped(place: Place, rounds: int) -> Figures:
    """SIGSTOP of the one coordinator for longer than the broker waits for it, then SIGCONT."""
    async with stage("coordinator stopped and woken", place.folder, place.namespace, place.rabbit.url) as here:
        for _ in range(rounds):
            await here.progress()
            stop(victim := here.coordinators[0])
            losses = said(victim, "lost:")
            await asyncio.sleep(7)
            go_on(victim)
            await until(lambda victim=victim, losses=losses: said(victim, "lost:") > losses, "it to notice")
            await here.recovered()
        return await here.conclude()


async def _through_proxy(
    name: str, place: Place, rounds: int, strike: Callable[[Proxy], None], *, seconds: float
) -> Figures:
    """Worker and coordinator reach the broker through a proxy that misbehaves for some seconds."""
    async with Proxy(place.rabbit.port) as proxy:
        through = place.rabbit.url.replace(str(place.rabbit.port), str(proxy.port))
        async with stage(name, place.folder, place.namespace, place.rabbit.url, through=through) as here:
            for _ in range(rounds):
                await here.progress()
                strike(proxy)
                await asyncio.sleep(seconds)
                proxy.flow()
                await here.recovered()
            return await here.conclude()


async def network_cut(place: Place, rounds: int) -> Figures:
    """All connections are reset at once."""
    return await _through_proxy("connections reset", place, rounds, Proxy.reset, seconds=0)


async def network_black_hole(place: Place, rounds: int) -> Figures:
    """No byte comes through for twelve seconds, and nobody says so."""
    return await _through_proxy("black hole of 12 s", place, rounds, Proxy.swallow, seconds=12)


async def network_one_way(place: Place, rounds: int) -> Figures:
    """What clients send arrives, what the broker answers does not, for twelve seconds."""
    return await _through_proxy(
        "one-way loss of 12 s", place, rounds, lambda proxy: proxy.swallow(to_service=False), seconds=12
    )


async def network_slow(place: Place, rounds: int) -> Figures:
    """Every piece takes 0.2 s each way for five seconds."""
    return await _through_proxy("slow network (0.2 s each way)", place, rounds, Proxy.slow, seconds=5)


async def memory_alarm(place: Place, rounds: int) -> Figures:
    """The broker takes no messages for five seconds: an alarm of memory."""
    async with stage("memory alarm", place.folder, place.namespace, place.rabbit.url) as here:
        for _ in range(rounds):
            await here.progress()
            await asyncio.to_thread(place.rabbit.ctl, "set_vm_memory_high_watermark", "0.00001")
            try:
                await asyncio.sleep(5)
            finally:
                await asyncio.to_thread(place.rabbit.ctl, "set_vm_memory_high_watermark", "0.4")
            await here.recovered()
        return await here.conclude()


async def consumer_timeout(place: Place, rounds: int) -> Figures:
    """The broker closes channels that leave a message unacknowledged for a second; tasks take three."""

    def settings(timeout: int, tick: int) -> str:
        values = {"consumer_timeout": timeout, "channel_tick_interval": tick}
        return ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in values.items()) + "."

    await asyncio.to_thread(place.rabbit.ctl, "eval", settings(1_000, 250))
    try:
        async with stage("consumer_timeout of 1 s, tasks of 3 s", place.folder, place.namespace, place.rabbit.url,
                         load={"work": 3.0, "kinds": ("chain", "gather"), "at_once": 4}) as here:  # fmt: skip
            (worker,) = here.workers
            for _ in range(rounds):
                before = said(worker, "queue .*: ")
                await until(lambda before=before: said(worker, "queue .*: ") > before, "a channel that is closed")
                here.figures.faults += 1
            return await here.conclude()
    finally:
        await asyncio.to_thread(place.rabbit.ctl, "eval", settings(1_800_000, 60_000))


async def store_locked(place: Place, rounds: int) -> Figures:
    """Somebody else holds the SQLite file locked for longer than a transaction waits."""
    async with stage("store locked for 7 s", place.folder, place.namespace, place.rabbit.url) as here:
        (coordinator,) = here.coordinators
        for _ in range(rounds):
            await here.progress()
            before = said(coordinator, "store is away")
            with closing(sqlite3.connect(place.folder / "flowkit.db", isolation_level=None, timeout=30)) as foreign:
                foreign.execute("BEGIN EXCLUSIVE")
                await until(lambda before=before: said(coordinator, "store is away") > before, "it to say so")
                foreign.execute("ROLLBACK")
            await here.recovered()
        return await here.conclude()


async def store_full(place: Place, rounds: int) -> Figures:
    """The disk of the store is full: no page can be added until somebody makes room."""
    pages = place.folder / "pages"

    def allow(number: str) -> None:
        """In one step: the coordinator reads the file whenever it likes."""
        fresh = pages.with_suffix(".new")
        fresh.write_text(number)
        fresh.replace(pages)

    allow(ROOM)
    async with stage("store full", place.folder, place.namespace, place.rabbit.url, program=FULL,
                     CHAOS_PAGES=str(pages)) as here:  # fmt: skip
        (coordinator,) = here.coordinators
        for _ in range(rounds):
            await here.progress()
            before = said(coordinator, "the disk is full")
            allow("1")  # SQLite takes the number it has for less than that
            await until(lambda before=before: said(coordinator, "the disk is full") > before, "it to say so")
            allow(ROOM)
            await here.recovered()
        return await here.conclude()


async def postgres_restarted(place: Place, rounds: int) -> Figures:
    """PostgreSQL is shot down and started again."""
    cluster = place.postgres()
    with database(cluster.url) as store:
        async with stage("PostgreSQL restarted", place.folder, place.namespace, place.rabbit.url,
                         store=store) as here:  # fmt: skip
            (coordinator,) = here.coordinators
            for _ in range(rounds):
                await here.progress()
                before = said(coordinator, "store is away")
                await asyncio.to_thread(cluster.stop, "immediate")
                await until(lambda before=before: said(coordinator, "store is away") > before, "it to say so")
                await asyncio.to_thread(cluster.start)
                await here.recovered()
            return await here.conclude()


async def lock_timeouts(place: Place, rounds: int) -> Figures:
    """The login has a lock_timeout of 500 ms; another session holds all rows of runs, and then a table, for longer."""
    with database(place.postgres().url) as store:
        name = store.rpartition("/")[2]
        with psycopg.connect(store, autocommit=True) as session:
            session.execute(f"ALTER DATABASE {name} SET lock_timeout = '500ms'")
        async with stage("lock timeouts (PostgreSQL)", place.folder, place.namespace, place.rabbit.url,
                         store=store) as here:  # fmt: skip
            (coordinator,) = here.coordinators
            for _ in range(rounds):
                for locks in ("SELECT id FROM runs FOR UPDATE", "LOCK TABLE tasks"):
                    await here.progress()
                    before = said(coordinator, "lock timeout")
                    with psycopg.connect(store) as session:
                        session.execute("SET lock_timeout = 0")
                        await asyncio.to_thread(session.execute, locks)
                        await until(lambda before=before: said(coordinator, "lock timeout") > before, "it to say so")
                        await asyncio.sleep(2)  # several tries: what is waited for is that nothing is given up
                    await here.recovered()
            return await here.conclude()


async def pgbouncer_killed(place: Place, rounds: int) -> Figures:
    """kill -9 of the PgBouncer, in transaction mode, through which two coordinators reach PostgreSQL."""
    with database(place.postgres().url) as direct, pooler(direct) as between:
        async with stage("PgBouncer killed", place.folder, place.namespace, place.rabbit.url,
                         store=between.through(direct), coordinators=2) as here:  # fmt: skip
            for _ in range(rounds):
                await here.progress()
                before = [said(coordinator, "store is away") for coordinator in here.coordinators]
                await asyncio.to_thread(between.kill)
                await until(
                    lambda before=before: all(
                        said(coordinator, "store is away") > count
                        for coordinator, count in zip(here.coordinators, before, strict=True)
                    ),
                    "both to say so",
                )
                await asyncio.to_thread(between.start)
                await here.recovered()
            return await here.conclude()


async def rolling_restart(place: Place, rounds: int) -> Figures:
    """SIGTERM for each worker and each coordinator in turn, its successor first: nothing is lost or run again."""
    with database(place.postgres().url) as store:
        async with stage("rolling restart (PostgreSQL)", place.folder, place.namespace, place.rabbit.url, store=store,
                         workers=2, coordinators=2) as here:  # fmt: skip
            for _ in range(rounds):
                for commands, begin in ((here.workers, here.worker), (here.coordinators, here.coordinator)):
                    for old in list(commands):
                        await here.progress()
                        await begin()
                        commands.remove(old)
                        if (code := await old.terminate()) != 0:
                            here.figures.wrong.append(f"{old.args} exits {code}: {old.said[-2000:]}")
                await here.recovered()
            figures = await here.conclude()
    if figures.again:
        figures.wrong.append(f"{figures.again} executions of tasks that had been executed")
    return figures


async def restart_on_sqlite(place: Place, rounds: int) -> Figures:
    """The same with one coordinator, which has the file: first the old one ends, then the new one begins."""
    async with stage("rolling restart (SQLite)", place.folder, place.namespace, place.rabbit.url, workers=2) as here:
        for _ in range(rounds):
            for old in (*here.workers, *here.coordinators):
                await here.progress()
                if (code := await old.terminate()) != 0:
                    here.figures.wrong.append(f"{old.args} exits {code}: {old.said[-2000:]}")
                await here.replace(old)
            await here.recovered()
        figures = await here.conclude()
    if figures.again:
        figures.wrong.append(f"{figures.again} executions of tasks that had been executed")
    return figures


async def log_flood(place: Place, rounds: int) -> Figures:
    """A node logs 50,000 lines as fast as it can, and a tail stands still."""
    async with stage("flood of 50,000 log lines, a stuck tail", place.folder, place.namespace,
                     place.rabbit.url) as here:  # fmt: skip
        tail = await here.shell.flowkit("logs", "-f")
        for n in range(rounds):
            stop(tail)
            began = time.monotonic()
            code, out, words = await here.shell.call("start", "flood", "-F", "n=50000", "--id", f"flood-{n}", "--wait",
                                                     timeout=100)  # fmt: skip
            if code != 0 or '"lines": 50000' not in out:
                here.figures.wrong.append(f"the flood exits {code}: {out}{words}")
            here.figures.notes = f"flood took {time.monotonic() - began:.1f} s"
            await here.recovered()
        await tail.kill()
        return await here.conclude()


LATE = """
from flowkit import Node
late = Node("late")

@late.main
async def finish():
    return [], late.get_inputs(), ""
"""


async def queue_full(place: Place, rounds: int) -> Figures:
    """The queue of one node without a worker is full, by a policy; the others go on, and it catches up later."""
    (place.folder / "late.py").write_text(LATE)
    pattern = f"^{place.namespace}\\.tasks\\.late$"
    policy = ("set_policy", "full", pattern, '{"max-length": 3, "overflow": "reject-publish"}')
    await asyncio.to_thread(place.rabbit.ctl, *policy)
    try:
        async with (
            stage("queue of one node full", place.folder, place.namespace, place.rabbit.url) as here,
            Client(place.rabbit.url, namespace=place.namespace) as client,
        ):
            (coordinator,) = here.coordinators
            for _ in range(rounds):
                before, runs = said(coordinator, "late refuses tasks, it is full"), []
                async with asyncio.timeout(PATIENCE):  # a quorum queue takes some more before it knows that it is full
                    while said(coordinator, "late refuses tasks, it is full") == before:
                        runs += await client.start_many("late", [{"n": len(runs) + n} for n in range(10)])
                await here.recovered()
                worker = await here.shell.worker(str(place.folder / "late.py"))
                async with asyncio.timeout(PATIENCE):
                    outputs = [(await run.outputs())["n"] for run in runs]
                assert outputs == list(range(len(runs)))
                await coordinator.says("late accepts tasks again")
                await worker.terminate()
            return await here.conclude()
    finally:
        await asyncio.to_thread(place.rabbit.ctl, "clear_policy", "full")


async def queues_deleted(place: Place, rounds: int) -> Figures:
    """Somebody deletes the queue of results under load, and those for dead letters, announcements and logs."""
    topology, broker = Topology(place.namespace), open_broker(place.rabbit.url)
    queues = (topology.results, topology.dead, topology.unreadable, topology.workers, topology.logs)
    try:
        async with stage("standing queues deleted", place.folder, place.namespace, place.rabbit.url) as here:
            for _ in range(rounds):
                await here.progress()
                for queue in queues:
                    await broker.delete(queue.name)
                await here.recovered()
                async with asyncio.timeout(15):
                    while await broker.missing(queues):
                        await asyncio.sleep(0.1)
            return await here.conclude()
    finally:
        await broker.close()


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        worker_killed, coordinator_killed, one_of_two_coordinators_killed, broker_restarted, broker_killed,
        broker_wiped, broker_wiped_under_two_coordinators, worker_stopped, coordinator_stopped, network_cut,
        network_black_hole, network_one_way, network_slow, memory_alarm, consumer_timeout, store_locked, store_full,
        postgres_restarted, lock_timeouts, pgbouncer_killed, store_cut_off, commit_answers_lost, rolling_restart,
        restart_on_sqlite, log_flood, queue_full, queues_deleted,
    )
}  # fmt: skip

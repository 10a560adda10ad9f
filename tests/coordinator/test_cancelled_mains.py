"""Real workers and a coordinator: two mains of ``Node(limit=1)`` never run at once, whatever cancels the first one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from flowkit import Gather, Node, Send
from flowkit.worker.stage import OwnThread
from flowkit.worker.worker import Worker
from tests.coordinator.house import FAST, House

PATIENT = replace(FAST, slots_every=3600, lease_silence=3600)  # nothing is freed for its time alone
SOON = 1.0  # seconds in which a worker is told


class Plant:
    """Nodes: ``open`` begins a Gather over ``slow``, of which there is one at a time, and ``breaks``."""

    def __init__(self, timeout: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self.most = 0
        self.begun: list[str] = []
        self.changed = asyncio.Condition()
        self.told, self.may_break, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        opens, slow, breaks, last = Node("open"), Node("slow", limit=1), Node("breaks"), Node("last")
        self.nodes = (opens, slow, breaks, last)

        @opens.main
        async def _open():
            return [Gather([Send("slow", {"of": "r"}), "breaks"], then="last", timeout=timeout)], {}, ""

        @slow.main
        async def _slow():
            self._running += 1
            self.most = max(self.most, self._running)
            of = slow.get_inputs()["of"]
            self._call(self._note, of)
            try:
                if of == "r":
                    await self._gate(self.may_end)
            except asyncio.CancelledError:
                self._call(self.told.set)
                while not self.may_end.is_set():  # it has something to put in order
                    await asyncio.sleep(0.01)
                raise
            finally:
                self._running -= 1
            return [], {}, ""

        @breaks.main
        async def _breaks():
            await self._gate(self.may_break)
            raise OSError("broken")

        @last.main
        async def _last():
            return [], {}, ""

    async def began(self, of: str) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: of in self.begun)

    def _call(self, function, *arguments) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _note(self, of: str) -> None:
        self.begun.append(of)
        self._loop.create_task(self._notify())

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _gate(self, event: asyncio.Event) -> None:
        while not event.is_set():  # it belongs to another loop
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def at_work(house: House, plant: Plant, name: str) -> AsyncIterator[Worker]:
    """A worker that is told by control messages only: it announces itself once."""
    definitions = [node.definition for node in plant.nodes]
    worker = Worker(house.broker, house.topology, definitions, name=name, heartbeat=3600, stage=OwnThread())
    running = asyncio.create_task(worker.run())
    await worker.ready()
    await house.until(lambda q: [row for row in q.workers(seen_since=0) if row.name == name], "its announcement")
    try:
        yield worker
    finally:
        plant.may_end.set()
        plant.may_break.set()
        await worker.stop()
        await running


@pytest.mark.parametrize("how", ["fails", "times out", "cancelled", "cancelled with a grace"])
async def test_the_next_one_begins_when_the_first_has_ended(every_house, how):
    house = every_house
    plant = Plant(timeout=0.3 if how == "times out" else None)
    async with house.coordinator(pace=PATIENT), at_work(house, plant, "w1"), at_work(house, plant, "w2"):
        await house.start("open", "r")
        await plant.began("r")
        await house.start("slow", "next", inputs={"of": "next"})
        await house.until(lambda q: [row for row in q.tasks("next") if row.held_for == "limit"], "it waits")
        if how == "fails":
            plant.may_break.set()
        elif how.startswith("cancelled"):
            grace = {"grace": 30} if how.endswith("grace") else {}
            await house.publish("commands", "cancel", {"id": str(uuid4()), "kind": "cancel", "run_id": "r", **grace})
        await house.run_ended("r")
        if how != "cancelled with a grace":
            async with asyncio.timeout(SOON):
                await plant.told.wait()
        await house.store.transact(lambda tx: tx.admit(["slow"], tx.node_limits()))
        held = [row.held_for for row in await house.rows("next")]
        assert (plant.begun, held) == (["r"], ["limit"]), "the first main goes on"
        plant.may_end.set()
        await plant.began("next")
        assert (await house.run_ended("next")).status == "succeeded"
        assert plant.most == 1
        assert await house.store.query(lambda q: q.cancelled_attempts()) == 0


async def test_a_message_that_nobody_had_taken_is_dropped_unexecuted(every_house):
    house, plant = every_house, Plant()
    async with house.coordinator(pace=PATIENT):
        announcement = {"worker": "other", "nodes": [{"name": "slow", "limit": 1}], "running": []}
        await house.publish("workers", "", announcement)
        await house.until(lambda q: [name for name, *_ in q.node_infos() if name == "slow"], "the announcement")
        async with at_work(house, plant, "w1") as worker:
            for intake in worker._intakes:  # all of its consumers but that of its control queue
                if intake.node == "slow":
                    (consumer,) = intake.consumers
                    await consumer.suspend()
            await house.start("slow", "r", inputs={"of": "r"})
            while (await house.broker.inspect(house.topology.tasks("slow").name)).ready == 0:
                await house.until(lambda q: q.tasks("r"), "its message")
            await house.start("slow", "next", inputs={"of": "next"})
            await house.until(lambda q: [row for row in q.tasks("next") if row.held_for == "limit"], "it waits")
            await house.publish("commands", "cancel", {"id": str(uuid4()), "kind": "cancel", "run_id": "r"})
            await house.run_ended("r")
            while not worker._taken._cancelled:
                await house.until(lambda q: q.run("r"), "the worker hears")
            await consumer.resume()
            assert (await house.run_ended("next")).status == "succeeded"
            assert plant.begun == ["next"]

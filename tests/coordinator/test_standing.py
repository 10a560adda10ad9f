"""Exchanges, queues and bindings that somebody deletes under a coordinator."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from flowkit.coordinator.archive import Archive
from flowkit.wire import messages as wire
from flowkit.wire.topology import Exchange, Topology
from tests.coordinator.house import FAST, House

STANDING = Topology().standing


def declared_again(caplog) -> list[str]:
    return [one.name_of_part for one in caplog.records if getattr(one, "action", "") == "declared_again"]


async def a_run_goes_through(house: House, run_id: str) -> None:
    async with asyncio.timeout(10):
        await house.start("a", run_id)
        (task,) = await house.tasks("a")
        await house.answer(task)
        await house.run_ended(run_id)


async def delete(house: House, part) -> None:
    if isinstance(part, Exchange):
        house.broker.delete_exchange(part.name)
    else:
        await house.broker.delete(part.name)


async def back(house: House, *parts) -> None:
    async with asyncio.timeout(5):
        while await house.broker.missing(parts):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("part", STANDING, ids=lambda part: f"{type(part).__name__} {part.name}")
async def test_what_was_deleted_is_declared_again_and_said_once(house, caplog, part):
    async with house.coordinator():
        await a_run_goes_through(house, "r1")
        await delete(house, part)
        await back(house, part)
        await a_run_goes_through(house, "r2")
        assert declared_again(caplog) == [part.name]


async def test_all_of_it_deleted_at_once_is_declared_again(house):
    async with house.coordinator():
        await a_run_goes_through(house, "r1")
        for part in STANDING:
            await delete(house, part)
        await back(house, *STANDING)
        await a_run_goes_through(house, "r2")


@pytest.mark.parametrize("queue", ["results", "starts", "commands"])
async def test_a_binding_that_was_deleted_is_made_again(house, queue):
    name = house.topology.name(queue)
    async with house.coordinator():
        await a_run_goes_through(house, "r1")
        house.broker.delete_binding(name, name)
        async with asyncio.timeout(5):
            while not house.broker._server._exchanges[name].bindings:
                await asyncio.sleep(0.01)
        await a_run_goes_through(house, "r2")


@pytest.mark.parametrize("at_once", [False, True], ids=["by the coordinator", "by somebody else, at once"])
async def test_a_task_whose_result_was_in_the_deleted_queue_runs_again_soon(house, at_once):
    pace = replace(FAST, sweep_every=3600, sweep_after=3600, worker_silence=0.3)
    async with house.coordinator(pace=pace):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.leave("a")
        await house.broker.delete(house.topology.results.name)  # with the result, as far as anybody can tell
        if at_once:
            await house.broker.declare([house.topology.results])
        queue = house.topology.tasks("a").name
        async with asyncio.timeout(10):
            while not (await house.broker.inspect(queue)).ready:
                await asyncio.sleep(0.01)
            (again,) = await house.tasks("a")
            assert again.task_id == task.task_id
            await house.answer(again)
            await house.run_ended("r1")


async def test_what_was_in_the_deleted_queue_of_a_node_is_sent_again_soon(house):
    pace = replace(FAST, sweep_every=3600, sweep_after=3600, worker_silence=0.3)
    async with house.coordinator(pace=pace):
        await house.start("a", "r1")
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.sent_at], "the mark of being sent")
        await house.broker.delete(house.topology.tasks("a").name)
        async with asyncio.timeout(10):
            await house.tasks("a")


async def test_the_queue_of_a_node_that_nobody_needs_may_be_deleted(house):
    async with house.coordinator():
        await a_run_goes_through(house, "r1")
        await house.leave("a")
        await house.broker.delete(house.topology.tasks("a").name)
        await delete(house, house.topology.results)
        await back(house, house.topology.results)
        assert await house.broker.inspect(house.topology.tasks("a").name) is None


async def test_what_names_the_owner_is_declared_again_when_it_was_deleted(house):
    owner = house.topology.owner(await house.store.query(lambda queries: queries.meta("id")))
    async with house.coordinator():
        await a_run_goes_through(house, "r1")
        await delete(house, owner)
        await back(house, owner)
        await a_run_goes_through(house, "r2")
        await house.until(lambda queries: queries.meta("marked") == "yes", "the broker is ours for certain")


async def test_a_wipe_behind_an_imported_owner_is_recognised(house):
    owner = house.topology.owner(await house.store.query(lambda queries: queries.meta("id")))
    async with house.coordinator():
        await house.start("a", "r1")
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.sent_at], "the mark of being sent")
        house.broker.wipe()
        await house.broker.declare([*house.topology.standing, owner])  # as imported definitions do, without messages
        async with asyncio.timeout(5):
            assert (await house.tasks("a"))[0].run_id == "r1"


async def test_a_part_that_may_not_be_declared_is_said_once_and_looked_for_again(house, caplog, monkeypatch):
    declare, forbidden = type(house.broker).declare, [house.topology.results]

    async def restricted(self, parts):
        parts = list(parts)
        await declare(self, [part for part in parts if part not in forbidden])
        return [part for part in parts if part in forbidden]

    async with house.coordinator():
        monkeypatch.setattr(type(house.broker), "declare", restricted)
        await house.broker.delete(house.topology.results.name)
        async with asyncio.timeout(5):
            for _ in range(3):  # looks
                looked = asyncio.Event()
                monkeypatch.setattr(type(house.broker), "missing", watched(type(house.broker).missing, looked))
                await looked.wait()
        told = [one.message for one in caplog.records if getattr(one, "action", "") == "part_missing"]
        assert len(told) == 1
        assert "may not declare it" in told[0]
        forbidden.clear()
        await back(house, house.topology.results)
        await a_run_goes_through(house, "r1")


def watched(missing, looked):
    async def look(self, parts):
        found = await missing(self, parts)
        looked.set()
        return found

    return look


async def test_the_archive_goes_on_with_the_stream_that_was_declared_again(house):
    async def log(message):
        line = {"ts": 1.0, "level": "info", "message": message, "run_id": "r1"}
        await house.publish("logs", "", line, durable=False)

    async with house.coordinator():
        for number in range(5):
            await log(f"old {number}")
        await house.until(lambda queries: len(queries.logs(run_id="r1")) == 5, "the old lines")
        await house.broker.delete(house.topology.logs.name)
        await back(house, house.topology.logs)
        await log("new")
        await house.until(lambda queries: len(queries.logs(run_id="r1")) == 6, "the new line")


async def test_lines_of_a_former_stream_do_not_move_the_offset_of_the_new_one(house, monkeypatch):
    keep, kept = Archive._keep, []

    async def log(message):
        await house.publish("logs", "", {"ts": 1.0, "level": "info", "message": message, "run_id": "r1"}, durable=False)

    async def late(self, deliveries, before):
        if deliveries and not kept:  # in hand, and nothing was committed yet
            kept.append(before)
            house.broker.wipe()
            await back(house, house.topology.logs)
            await house.until(lambda queries: queries.meta("marked") == "yes", "the new broker is ours")
            await log("new")
        return await keep(self, deliveries, before)

    monkeypatch.setattr(Archive, "_keep", late)
    async with house.coordinator():
        await log("old")
        await house.until(lambda queries: [line for line in queries.logs(run_id="r1") if line.message == "new"], "it")
        assert kept == [None]


async def test_ends_of_runs_that_nobody_heard_are_announced_again(house, caplog, monkeypatch):
    monkeypatch.setattr("flowkit.coordinator.standing.REBOUND", 0.5)
    caplog.set_level(logging.INFO, "flowkit.coordinator")
    async with house.coordinator():
        await a_run_goes_through(house, "before")
        ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
        await ear.wait_connected()
        house.broker.delete_binding(house.topology.name("runs"), house.topology.runs("test").name)
        await a_run_goes_through(house, "unheard")
        house.broker.delete_exchange(house.topology.name("runs"))
        async with asyncio.timeout(5):
            told = set()
            while "unheard" not in told:
                told |= {wire.decode(wire.RunEnded, one.body).run_id for one in await ear.receive(9)}
        await ear.close()


async def test_ends_of_runs_that_nobody_heard_are_announced_when_the_next_coordinator_begins(house, monkeypatch):
    monkeypatch.setattr("flowkit.coordinator.standing.REBOUND", 3600)
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    async with house.coordinator(pace=replace(FAST, relay_after=3600)):
        await ear.wait_connected()
        house.broker.delete_binding(house.topology.name("runs"), house.topology.runs("test").name)
        await a_run_goes_through(house, "unheard")
        house.broker.delete_exchange(house.topology.name("runs"))
        await house.until(lambda queries: queries.unannounced(), "the end counts as unannounced")
    async with house.coordinator(alone=True), asyncio.timeout(5):
        (told,) = await ear.receive(1)
        assert wire.decode(wire.RunEnded, told.body).run_id == "unheard"
    await ear.close()

"""Tasks that no worker takes in time: failed by the coordinator, but only when nobody can have them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from flowkit.store.views import Queries
from flowkit.wire import codec
from tests.coordinator.house import FAST, House
from tests.coordinator.test_leases import ear

SOON = replace(FAST, overdue_every=0.02, worker_silence=0.3)
TIMEOUT = 0.05


async def announce(house: House, worker: str = "w", running: Any = (), **more: Any) -> None:
    node = {"name": "slow", "queue_timeout": TIMEOUT, **more}
    await house.publish("workers", "", {"worker": worker, "nodes": [node], "running": list(running)})


async def announced(house: House) -> None:
    """The coordinator has read an announcement."""
    await house.until(lambda queries: queries.node_infos(), "an announcement")


def error_of(row: Any) -> tuple[str, str]:
    told = codec.loads(row.error)
    return told["type"], told["message"]


async def test_a_task_that_nobody_takes_fails_and_whoever_takes_it_later_changes_nothing(house):
    async with house.coordinator(pace=SOON):
        await announce(house)
        await announced(house)
        await house.start("slow", "r")
        run = await house.run_ended("r")
        assert run.status == "failed"
        assert error_of(run) == ("QueueTimeout", "no worker took it within 0.05 s (queue_timeout of node 'slow')")
        (task,) = await house.tasks("slow")
        assert task.start_by is not None
        await house.answer(task, outputs={"late": True})
        (superseded,) = await house.until(lambda queries: queries.superseded("r"), "a superseded result")
        assert superseded[3] == "the run is failed"


async def test_the_handler_of_failures_gets_it_though_no_worker_is_alive(house):
    async with house.coordinator(pace=SOON):
        await announce(house, on_error="complain")
        await announced(house)
        await house.start("slow", "r", inputs={"n": 1})
        (task,) = await house.tasks("complain")
        assert task.inputs["inputs"] == {"n": 1}
        assert task.inputs["error"]["type"] == "QueueTimeout"
        await house.answer(task, outputs={"handled": True})
        assert (await house.run_ended("r")).status == "succeeded"


async def test_what_a_store_knows_of_its_nodes_holds_after_a_restart(house):
    async with house.coordinator(pace=SOON):
        await announce(house)
        await announced(house)
    async with house.coordinator(pace=SOON):
        await house.start("slow", "r")
        assert (await house.run_ended("r")).status == "failed"


async def test_a_task_that_waits_behind_busy_workers_fails_and_the_one_they_run_does_not(house):
    """Both rows say ``queued``: only the announcement knows which is which."""
    async with house.coordinator(pace=SOON):
        await announce(house)
        await announced(house)
        await house.start("slow", "taken")
        (task,) = await house.tasks("slow")
        await house.start("slow", "waiting")
        found = None
        async with asyncio.timeout(30):
            while found is None or found.ended_at is None:  # the worker goes on saying what it has
                await announce(house, running=[[str(task.task_id), 1, None]])
                found = await house.store.query(lambda queries: queries.run("waiting"))
        assert found.status == "failed"
        await house.answer(task)
        assert (await house.run_ended("taken")).status == "succeeded"


async def looks(house: House) -> None:
    """Time for several looks: another node's task, sent later and known to nobody, fails by them."""
    await house.publish(
        "workers", "", {"worker": "other", "nodes": [{"name": "witness", "queue_timeout": TIMEOUT}], "running": []}
    )
    await house.until(lambda queries: len(queries.node_infos()) > 1, "the second node")
    await house.start("witness", "witness")
    assert (await house.run_ended("witness")).status == "failed"


async def test_where_a_foreign_worker_consumes_nobody_knows_and_nothing_fails(house):
    async with house.coordinator(pace=SOON):
        await announce(house)
        await announced(house)
        await house.start("slow", "r")
        (task,) = await house.tasks("slow")  # it is a consumer, and no worker is alive that announces itself
        await looks(house)
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_workers_are_told_of_one_whose_message_does_not_say_until_when_it_is_to_be_taken(house):
    """They would execute it, beside what its slot lets out in its place."""
    async with house.coordinator(pace=SOON), ear(house) as hear:
        await announce(house, limit=1)
        await announced(house)
        await house.start("slow", "r")
        (task,) = await house.tasks("slow")
        await house.leave("slow")
        await house.answer(task, status="returned", attempt=1)
        assert (await house.run_ended("r")).status == "failed"
        told = [one for one in await hear(2) if one.task_id is not None]
        assert [(one.kind, one.run_id, one.task_id, one.attempt) for one in told] == [("cancel", "r", task.task_id, 2)]
        (again,) = await house.tasks("slow")
        assert (again.attempt, again.start_by) == (2, None)


async def test_a_paused_run_is_left_alone(house):
    async with house.coordinator(pace=SOON):
        await announce(house)
        await announced(house)
        await house.start("slow", "r")
        await house.until(lambda queries: [task.sent_at for task in queries.tasks("r") if task.sent_at], "it is sent")
        command = {"id": "6f1c1c1e-0000-4000-8000-000000000001", "kind": "pause", "run_id": "r"}
        await house.publish("commands", "pause", command)
        await house.until(lambda queries: _status(queries, "r") == "paused", "it is paused")
        await looks(house)
        assert await house.store.query(lambda queries: _status(queries, "r")) == "paused"
        command |= {"id": "6f1c1c1e-0000-4000-8000-000000000002", "kind": "resume"}
        await house.publish("commands", "resume", command)
        assert (await house.run_ended("r")).status == "failed"


async def test_a_node_without_a_queue_timeout_waits_for_ever(house):
    async with house.coordinator(pace=SOON):
        await announce(house, queue_timeout=None)
        await announced(house)
        await house.start("slow", "r")
        await looks(house)
        assert await house.store.query(lambda queries: _status(queries, "r")) == "running"


async def test_more_than_a_page_of_them(house):
    count = 1_200
    async with house.coordinator(pace=SOON):
        await announce(house)
        await announced(house)
        await house.start("many", "r")
        (task,) = await house.tasks("many")
        gather = {"sends": ["slow"] * count, "then": "end", "return_exceptions": True}
        await house.answer(task, [{"gather": gather}])
        (end,) = await house.tasks("end")
        assert {result["error"]["type"] for result in end.inputs["results"]} == {"QueueTimeout"}
        assert len(end.inputs["results"]) == count


def _status(queries: Queries, run_id: str) -> str | None:
    run = queries.run(run_id)
    return None if run is None else run.status

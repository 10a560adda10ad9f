"""What foreign programs get wrong: the task fails with the reason, or the message is kept as a dead letter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flowkit.store.protocol import DeadLetter
from flowkit.store.views import Queries
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.access import Logins, parse_all
from tests.coordinator.house import FAST, House

ITEMS = [
    ({"gather": {"sends": [1], "then": "b"}}, "nodes.0.GatherItem.gather.sends.0"),
    ({"gather": {"sends": ["b"]}}, "nodes.0.GatherItem.gather.then: Field required"),
    ({"gather": {"sends": ["b"], "then": None}}, "nodes.0.GatherItem.gather.then"),
    ({"gather": {"sends": ["b"], "then": "b", "max_concurrency": 0}}, "max_concurrency: Input should be greater than"),
    ({"gather": {"sends": ["b"], "then": "b", "timeout": -1}}, "timeout: Input should be greater than 0"),
    ({"send": {"node": "b", "delay": -1}}, "nodes.0.SendItem.send.delay: Input should be greater than or equal to 0"),
    ({"send": {"node": "b c"}}, "nodes.0.SendItem.send.node: String should match pattern"),
    ({"wait": {"name": "go", "then": "b", "timeout": 0}}, "timeout: Input should be greater than 0"),
    ({"wait": {"name": "", "then": "b"}}, "nodes.0.WaitItem.wait.name"),
    ({"jump": "b"}, "nodes.0"),
    (7, "nodes.0"),
]

STARTS = [
    ({"node": "a", "run_id": "../../etc"}, "run_id: String should match pattern"),
    ({"node": "a", "run_id": ""}, "run_id: String should match pattern"),
    ({"node": "a", "run_id": "a\u0000b"}, "run_id: String should match pattern"),
    ({"node": "a", "run_id": "a\n"}, "run_id: String should match pattern"),
    ({"node": "a b"}, "node: String should match pattern"),
    ({"node": "a", "delay": -1}, "delay: Input should be greater than or equal to 0"),
    ({"node": "a", "deadline": 0}, "deadline: Input should be greater than 0"),
    ({"node": "a", "inputs": [1]}, "inputs: Input should be a valid dictionary"),
    ({"inputs": {}}, "node: Field required"),
]


async def dead_letter(house: House) -> DeadLetter:
    (letter,) = await house.until(lambda queries: queries.dead(limit=9), "a dead letter")
    return letter


@pytest.mark.parametrize(("item", "said"), ITEMS, ids=[str(item) for item, _ in ITEMS])
async def test_a_wrong_item_fails_the_task_and_the_next_one_is_heard(house, item, said):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [item])
        error = codec.loads((await house.run_ended("r")).error)
        assert error["type"] == "InvalidResult"
        assert said in error["message"]


@pytest.mark.parametrize("retry_in", [-1, "soon", "NaN"])
async def test_a_pause_that_is_no_duration_fails_the_task(house, retry_in):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, status="retry", attempt=1, retry_in=retry_in)
        error = codec.loads((await house.run_ended("r")).error)
        assert error["type"] == "InvalidResult"
        assert "retry_in" in error["message"]


@pytest.mark.parametrize(("start", "said"), STARTS, ids=[str(start) for start, _ in STARTS])
async def test_a_wrong_start_is_kept_with_the_reason(house, start, said):
    async with house.coordinator():
        await house.publish("starts", "a", start)
        letter = await dead_letter(house)
        assert (letter.reason, letter.queue, letter.body) == ("invalid", "flowkit.starts", codec.dumps(start))
        assert said in letter.detail
        assert await house.store.query(lambda queries: queries.runs(limit=9)[0]) == []


async def test_a_signal_for_a_run_that_has_ended_is_kept_with_the_reason(house):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task)
        await house.run_ended("r")
        command = {"id": "6f1c1c1e-0000-4000-8000-000000000001", "kind": "signal", "run_id": "r", "name": "go"}
        await house.publish("commands", "signal", command)
        letter = await dead_letter(house)
        assert (letter.reason, letter.run_id) == ("refused", None)
        assert letter.detail == "cannot signal run 'r': it is succeeded, not running or paused"


async def test_a_command_that_overtakes_the_start_of_its_run_is_kept_in_hand(house):
    async with house.coordinator():
        command = {"id": "6f1c1c1e-0000-4000-8000-000000000001", "kind": "signal", "run_id": "r", "name": "go"}
        await house.publish("commands", "signal", command)
        other = command | {"id": "6f1c1c1e-0000-4000-8000-000000000002", "name": "other"}
        await house.publish("commands", "signal", other)
        refused = {"id": "6f1c1c1e-0000-4000-8000-000000000003", "kind": "rerun", "run_id": "r", "new_run_id": "s"}
        await house.publish("commands", "rerun", refused)  # read behind the others, which have been looked at by then
        assert (await dead_letter(house)).reason == "refused"
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"wait": {"name": "go", "then": "b"}}, {"wait": {"name": "other", "then": "b"}}])
        for again in await house.tasks("b", 2):
            await house.answer(again)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_a_command_of_a_run_that_never_comes_is_refused_and_holds_up_nobody(house):
    async with house.coordinator(pace=replace(FAST, early=0.4)):
        for number in range(150):  # more than are kept in hand
            command = {"id": f"6f1c1c1e-0000-4000-8000-{number:012}", "kind": "cancel", "run_id": "nobody"}
            await house.publish("commands", "cancel", command)
        await house.start("a", "r")
        await house.tasks("a")
        cancel = {"id": "6f1c1c1e-0000-4000-8000-100000000000", "kind": "cancel", "run_id": "r"}
        await house.publish("commands", "cancel", cancel)
        assert (await house.run_ended("r")).status == "cancelled"
        letters = await house.until(
            lambda queries: found if len(found := queries.dead(limit=200)) == 150 else None, "all of the others"
        )
        assert {letter.detail for letter in letters} == {"this store knows no run 'nobody'"}
        state = await house.broker.inspect(house.topology.commands.name)
        assert state is not None
        assert state.ready == 0


async def test_a_then_that_nobody_has_waits_where_people_see_it(house, caplog):
    async with house.coordinator(pace=replace(FAST, lonely_every=0.05)):
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"gather": {"sends": ["b"], "then": "nobody"}}])
        await house.answer((await house.tasks("b"))[0], outputs={"n": 1})

        def waiting(queries: Queries) -> Any:
            return [row for row in queries.tasks("r") if row.node == "nobody" and row.sent_at is not None]

        (row,) = await house.until(waiting, "the task of the node that nobody has")
        assert row.status == "queued"
        await house.until(lambda _: "node nobody has no worker" in caplog.text, "a word about it")
        (task,) = await house.tasks("nobody")  # somebody has it now
        assert task.inputs == {"results": [{"n": 1}]}
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"


# Who may answer

LOGINS = Logins(parse_all({"pictures": "worker: a"}))


async def test_a_result_of_nobody_is_kept_and_the_task_goes_on(house):
    async with house.coordinator(logins=LOGINS):
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task)
        letter = await dead_letter(house)
        assert letter.reason == "forbidden"
        assert letter.detail.startswith("nobody (it has no user_id) may not answer for node 'a'")
        assert codec.loads(letter.body)["task_id"] == str(task.task_id)
        assert (await house.store.query(lambda queries: queries.run("r"))).status == "running"


async def test_nobody_announces_nodes_that_are_not_its_own(house, caplog):
    async with house.coordinator(logins=LOGINS):
        await house.publish("workers", "", {"worker": "w1", "nodes": [{"name": "a", "limit": 1}]})
        await house.until(lambda queries: queries.workers(seen_since=0), "the worker is known")
        assert await house.store.query(lambda queries: queries.node_infos()) == []
    assert "worker w1 of login None announces nodes that are not its own: a" in caplog.text


async def test_what_another_version_has_announced_keeps_no_coordinator_from_beginning(house: House, caplog) -> None:
    odd = wire.NodeInfo.model_construct({"name", "queue_timeout"}, name="odd", queue_timeout=-1.0)
    told = wire.Worker.model_construct({"worker", "nodes"}, worker="w", nodes=(odd,))
    await house.store.transact(lambda transaction: transaction.record_workers([told], transaction.now()))
    async with house.coordinator():
        await house.start("odd", "r")
        (task,) = await house.tasks("odd")
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"
    assert (
        "node odd was announced in other words than are understood here: queue_timeout: Input should be" in caplog.text
    )

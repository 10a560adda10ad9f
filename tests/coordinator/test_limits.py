"""Limits of nodes through the real coordinator: what goes out, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from uuid import uuid4

from flowkit.coordinator.commit import commit
from flowkit.flow.events import Commanded, Reported
from flowkit.flow.limits import Limits
from flowkit.store import open_store
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST, House

PATIENT = replace(FAST, slots_every=3600)  # nothing goes out because somebody looks now and then


async def announce(house: House, **node: object) -> None:
    await house.publish("workers", "", {"worker": "w", "nodes": [node], "running": []})
    await house.until(lambda q: [name for name, *_ in q.node_infos() if name == node["name"]], "the announcement")


async def fan_out(house: House, node: str, inputs: list[dict[str, object]], run_id: str = "r") -> None:
    await house.start("a", run_id)
    (task,) = await house.tasks("a")
    sends = [{"send": {"node": node, "inputs": one}} for one in inputs]
    await house.answer(task, sends)


async def settled(house: House, node: str, run_id: str = "r") -> Counter[tuple[str, str | None]]:
    rows = await house.rows(run_id)
    return Counter((row.status, row.held_for) for row in rows if row.node == node)


async def test_no_more_are_out_than_the_limit_and_each_end_lets_one_out(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=2)
        await fan_out(house, "b", [{"n": n} for n in range(6)])
        for ended in range(6):
            out = await house.tasks("b", 1)
            held = max(6 - ended - 2, 0)
            assert await settled(house, "b") == Counter(
                {("succeeded", None): ended, ("queued", None): 6 - ended - held, ("held", "limit"): held}
            )
            await house.answer(out[0], [], {"n": ended})
            await house.until(
                lambda q, n=ended: sum(row.status == "succeeded" for row in q.tasks("r")) == n + 2, "its end"
            )
        assert (await house.run_ended("r")).status == "succeeded"


async def test_keys_are_counted_apart_and_over_runs(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1, key="k")
        await fan_out(house, "b", [{"k": k} for k in "xxy"])
        await fan_out(house, "b", [{"k": "y"}, {"k": "z"}], "other")
        first = await house.tasks("b", 3)
        assert sorted(task.inputs["k"] for task in first) == ["x", "y", "z"]
        y = next(task for task in first if task.inputs["k"] == "y")
        await house.answer(y)
        (next_y,) = await house.tasks("b")
        assert (next_y.inputs["k"], next_y.run_id) == ("y", "other")


async def test_a_retry_makes_room_and_comes_back_in_its_turn(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1)
        await fan_out(house, "b", [{"n": 1}, {"n": 2}])
        (first,) = await house.tasks("b")
        await house.answer(first, status="retry", attempt=1, retry_in=0)
        (second,) = await house.tasks("b")
        assert second.inputs["n"] != first.inputs["n"]
        await house.until(lambda q: [r for r in q.tasks("r") if r.held_for == "limit"], "held again")
        await house.answer(second)
        (again,) = await house.tasks("b")
        assert (again.task_id, again.attempt, again.tries) == (first.task_id, 2, 2)


async def test_a_run_that_is_cancelled_makes_room_for_others(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1)
        await fan_out(house, "b", [{"n": 1}, {"n": 2}])
        (first,) = await house.tasks("b")
        await fan_out(house, "b", [{"n": 3}], "other")
        await house.until(lambda q: [r for r in q.tasks("other") if r.held_for == "limit"], "the other run waits")
        await house.publish("commands", "cancel", {"id": str(uuid4()), "kind": "cancel", "run_id": "r"})
        await house.run_ended("r")
        await house.answer(first, status="returned", attempt=1)
        (task,) = await house.tasks("b")
        assert task.run_id == "other"


async def test_a_pause_frees_no_slot_whose_task_is_on_its_way(house, monkeypatch):
    """The broker has it, a worker too, and only its confirm has not come yet."""
    publish, confirmed = house.broker.publish, asyncio.Event()

    async def confirm_late(messages):
        verdicts = await publish(messages)
        if any(message.type == wire.Task.TYPE and message.key == "b" for message in messages):
            await confirmed.wait()
        return verdicts

    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1)
        monkeypatch.setattr(house.broker, "publish", confirm_late)
        await fan_out(house, "b", [{"n": 1}, {"n": 2}])
        (first,) = await house.tasks("b")
        await command(house, "pause", "r")
        await house.until(lambda q: q.run("r").status == "paused", "the pause")
        assert await settled(house, "b") == {("queued", None): 1, ("held", "paused"): 1}
        await house.store.transact(lambda tx: tx.admit(["b"], tx.node_limits()))
        assert (await house.store.query(lambda q: q.slots(["b"])))["b"].out == 1
        await command(house, "resume", "r")
        await house.until(lambda q: q.run("r").status == "running", "it goes on")
        confirmed.set()
        await house.answer(first, attempt=1)
        (second,) = await house.tasks("b")
        assert (second.task_id != first.task_id, second.attempt) == (True, 1)
        await house.answer(second, attempt=1)
        assert (await house.run_ended("r")).status == "succeeded"
        assert {row.attempt for row in await house.rows("r")} == {1}


async def test_a_task_that_comes_back_with_a_pause_is_not_sent_until_its_run_goes_on(house):
    """Its next attempt is made in the very transaction that pauses the run."""
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1)
        await fan_out(house, "b", [{"n": 1}])
        (first,) = await house.tasks("b")
        returned = wire.Result(task_id=first.task_id, run_id="r", attempt=1, status=wire.Status.RETURNED)
        pause = wire.Command(id=uuid4(), kind=wire.CommandKind.PAUSE, run_id="r")
        limits = Limits()
        committed = await house.store.transact(
            lambda tx: commit(tx, [Reported(returned), Commanded(pause)], secret=b"s", limits=limits)
        )
        assert committed.tasks == []
        await command(house, "resume", "r")
        (again,) = await house.tasks("b")
        assert (again.task_id, again.attempt) == (first.task_id, 2)
        await house.answer(again, attempt=2)
        assert (await house.run_ended("r")).status == "succeeded"


async def command(house: House, kind: str, run_id: str) -> None:
    await house.publish("commands", kind, {"id": str(uuid4()), "kind": kind, "run_id": run_id})


async def test_a_limit_that_is_raised_or_gone_lets_more_out(house):
    async with house.coordinator(pace=replace(FAST, slots_every=0.02)):
        await announce(house, name="b", limit=1)
        await fan_out(house, "b", [{"n": n} for n in range(5)])
        await house.tasks("b")
        await announce(house, name="b", limit=3)
        await house.tasks("b", 2)
        await announce(house, name="b")
        await house.tasks("b", 2)


async def test_a_rate_spreads_tasks_over_time(house):
    loop = asyncio.get_running_loop()
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", rate="20/s")
        await fan_out(house, "b", [{"n": n} for n in range(11)])
        await house.tasks("b")
        began = loop.time()
        await house.tasks("b", 10)
        assert loop.time() - began >= 10 / 20 - 0.25


async def test_more_than_one_transaction_takes_go_out_one_after_the_other(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=5000)
        await fan_out(house, "b", [{"n": n} for n in range(1100)])
        assert len(await house.tasks("b", 1100)) == 1100


async def test_a_task_without_the_key_fails_its_run_with_the_reason(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1, key="k")
        await house.start("b", "none", inputs={"other": 1})
        ended = await house.run_ended("none")
        assert ended.status == "failed"
        assert "b: MissingKey: node 'b' is limited by the key 'k', which its inputs do not have" in ended.message
        await house.start("b", "later", inputs={"other": 1}, delay=0.05)
        assert "MissingKey" in (await house.run_ended("later")).message


async def test_two_coordinators_on_one_postgresql_never_let_out_too_many(house, postgres_database):
    """Both apply results of the same slots at the same time, each to its own runs and to each other's."""
    stores = [await open_store(postgres_database) for _ in range(2)]
    one, other = (House(house.broker, store, house.topology) for store in stores)
    pace = replace(PATIENT, relay_after=10)  # what one has in hand is not for the other to send
    most: Counter[str] = Counter()
    async with one.coordinator(pace=pace, name="c1"), other.coordinator(pace=pace, name="c2"):
        await announce(one, name="b", limit=3, key="k")
        for run in range(4):
            await fan_out(one, "b", [{"k": n % 2} for n in range(20)], f"r{run}")
        for _ in range(80):
            (task,) = await one.tasks("b")
            for name, count in (await one.store.query(lambda q: q.slots(["b k=0", "b k=1"]))).items():
                most[name] = max(most[name], count.out)
            await one.answer(task)
        for run in range(4):
            assert (await one.run_ended(f"r{run}")).status == "succeeded"
    assert most == {"b k=0": 3, "b k=1": 3}
    for opened in stores:
        await opened.close()


async def test_a_retry_of_a_task_without_its_key_fails_again_until_it_has_one(house):
    async with house.coordinator(pace=PATIENT):
        await announce(house, name="b", limit=1, key="customer")
        await fan_out(house, "b", [{"order": 1}])
        assert "MissingKey" in (await house.run_ended("r")).message
        await house.publish("commands", "retry", {"id": str(uuid4()), "kind": "retry", "run_id": "r"})
        await house.until(lambda q: q.commands("r"), "the retry")
        again = await house.until(lambda q: [row for row in q.tasks("r") if row.attempt == 2], "the next attempt")
        assert again[0].path == "0.0"
        assert "MissingKey" in (await house.run_ended("r")).message
        await announce(house, name="b", limit=1, key="order")
        await house.until(lambda q: b'"order"' in q.node_infos()[0][1], "the new key")
        await house.publish("commands", "retry", {"id": str(uuid4()), "kind": "retry", "run_id": "r"})
        (task,) = await house.tasks("b")
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"

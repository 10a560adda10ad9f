"""Waits, commands and timers through the real coordinator and store."""

from __future__ import annotations

import time
from uuid import uuid4

from flowkit.wire import codec
from flowkit.wire import messages as wire


async def command(house, kind, run_id, **more):
    await house.publish("commands", kind, {"id": str(uuid4()), "kind": kind, "run_id": run_id, **more})


async def test_a_signal_ends_a_wait(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await command(house, "signal", "r1", name="go", input={"early": True})
        await house.until(lambda queries: queries.signals("r1"), "the kept signal")
        waits = [{"wait": {"name": name, "then": "b"}} for name in ("go", "go")]
        await house.answer(task, waits, {"order": 7})
        (first,) = await house.tasks("b")
        assert first.inputs == {"order": 7, "signal": {"early": True}}
        await command(house, "signal", "r1", name="go")
        (second,) = await house.tasks("b")
        assert second.inputs == {"order": 7, "signal": {}}


async def test_a_wait_times_out(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        wait = {"wait": {"name": "go", "then": "b", "timeout": 0.05, "on_timeout": "late"}}
        await house.answer(task, [wait], {"order": 7})
        (late,) = await house.tasks("late")
        assert late.inputs == {"order": 7}


async def test_cancel_ends_a_run_and_tells_workers_and_waiting_clients(house):
    control = house.broker.consume(house.topology.control("w1"), prefetch=10)
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, ["b", {"wait": {"name": "go", "then": "b"}}])
        await command(house, "cancel", "r1")
        (told,) = await control.receive(1)
        assert wire.decode(wire.Control, told.body).run_id == "r1"
        (ended,) = await ear.receive(1)
        assert wire.decode(wire.RunEnded, ended.body).status == "cancelled"
        assert {row.status for row in await house.rows("r1")} == {"succeeded", "cancelled"}
    await control.close()
    await ear.close()


async def test_pause_and_resume(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await command(house, "pause", "r1")
        await house.until(lambda queries: queries.run("r1").status == "paused", "the pause")
        await house.answer(task, ["b"], {"x": 1})
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.held_for == "paused"], "held")
        await command(house, "resume", "r1")
        (held,) = await house.tasks("b")
        assert held.inputs == {"x": 1}


async def test_retry_goes_on_where_the_run_failed(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        gather = {"gather": {"sends": ["b", "c"], "then": "sum"}}
        await house.answer(task, [gather], {"x": 1})
        (good,) = await house.tasks("b")
        await house.answer(good, [], {"good": 1})
        (bad,) = await house.tasks("c")
        await house.answer(bad, status="failed", error={"type": "ValueError", "message": "boom"})
        assert (await house.run_ended("r1")).message == "c: ValueError: boom"
        await command(house, "retry", "r1")
        (again,) = await house.tasks("c")
        assert (again.task_id, again.attempt, again.tries) == (bad.task_id, 2, 1)
        await house.answer(again, [], {"again": 1})
        (then,) = await house.tasks("sum")
        assert then.inputs["results"] == [{"good": 1}, {"again": 1}]
        await house.answer(then, [], {"ok": True})
        run = await house.run_ended("r1")
        assert (run.status, codec.loads(run.outputs), run.error) == ("succeeded", {"ok": True}, None)


async def test_on_error_as_the_worker_announced_it(house):
    async with house.coordinator():
        told = {"worker": "w1", "nodes": [{"name": "a", "on_error": "rescue"}]}
        await house.publish("workers", "", told, durable=False)
        await house.until(lambda queries: queries.workers(seen_since=0), "the worker")
        await house.start("a", "r1", inputs={"x": 1})
        (task,) = await house.tasks("a")
        await house.answer(task, status="failed", error={"type": "ValueError", "message": "boom"})
        (rescue,) = await house.tasks("rescue")
        assert (rescue.inputs["inputs"], rescue.inputs["error"]["message"]) == ({"x": 1}, "boom")
        await house.answer(rescue, [], {"rescued": True})
        assert (await house.run_ended("r1")).status == "succeeded"


async def test_a_queue_timeout_travels_with_each_task(house):
    before = time.time()
    async with house.coordinator():
        told = {"worker": "w1", "nodes": [{"name": "a", "queue_timeout": 30}]}
        await house.publish("workers", "", told, durable=False)
        await house.until(lambda queries: queries.node_infos(), "the node")
    async with house.coordinator():  # which has heard nobody yet
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        assert before + 30 <= task.start_by <= time.time() + 30


async def test_a_gather_and_a_run_take_too_long(house):
    async with house.coordinator():
        await house.start("a", "slow")
        (task,) = await house.tasks("a")
        options = {"timeout": 0.05, "return_exceptions": True}
        await house.answer(task, [{"gather": {"sends": ["b", "c"], "then": "sum", **options}}])
        (branch,) = await house.tasks("b")
        await house.tasks("c")
        (then,) = await house.tasks("sum")
        assert [result["error"]["type"] for result in then.inputs["results"]] == ["TimeoutError"] * 2
        await house.answer(branch, [], {"late": True})
        await house.start("a", "late", deadline=0.05)
        run = await house.run_ended("late")
        assert (run.status, "DeadlineExceeded" in run.message) == ("failed", True)


async def test_a_command_that_makes_no_sense_is_a_dead_letter_with_the_reason(house):
    async with house.coordinator():
        await house.start("a", "r1")
        await house.tasks("a")
        await command(house, "resume", "r1")
        await command(house, "cancel", "ghost")
        await house.publish("commands", "cancel", {"id": str(uuid4()), "kind": "cancel"})
        letters = await house.until(lambda queries: len(found := queries.dead(limit=9)) == 3 and found, "dead letters")
        details = " | ".join(sorted(letter.detail for letter in letters))
        assert "cannot resume run 'r1': it is running, not paused" in details
        assert "no run 'ghost'" in details
        assert "names its run" in details


async def test_a_task_that_kills_its_processes_is_given_up(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        for number in range(4):
            began = {"status": "started", "attempt": 1, "worker": f"w{number}", "started_at": 1000.0 + number}
            await house.answer(task, **began)
        run = await house.run_ended("r1")
        assert "ProcessDied" in run.message


async def test_all_of_it_on_real_services(real_house):
    await test_a_signal_ends_a_wait(real_house)


async def test_retry_on_real_services(real_house):
    await test_retry_goes_on_where_the_run_failed(real_house)


async def test_pause_on_real_services(real_house):
    await test_pause_and_resume(real_house)


async def test_only_a_window_of_a_gather_is_sent(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        sends = [{"node": "b", "inputs": {"i": i}} for i in range(5)]
        await house.answer(task, [{"gather": {"sends": sends, "then": "sum", "max_concurrency": 2}}])
        running = await house.tasks("b", 2)
        assert [row.held_for for row in await house.rows("r1")].count("max_concurrency") == 3
        seen = []
        while running:
            branch = running.pop(0)
            seen.append(branch.inputs["i"])
            await house.answer(branch, [], {"i": branch.inputs["i"]})
            if len(seen) + len(running) < 5:
                running += await house.tasks("b")
                assert (await house.broker.inspect(house.topology.tasks("b").name)).ready == 0
        (then,) = await house.tasks("sum")
        assert [result["i"] for result in then.inputs["results"]] == [0, 1, 2, 3, 4]


async def test_a_window_on_real_services_and_after_a_retry(real_house):
    house = real_house
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"gather": {"sends": ["b", "b", "b"], "then": "sum", "max_concurrency": 1}}])
        (branch,) = await house.tasks("b")
        await house.answer(branch, status="failed", error={"type": "E"})
        await house.run_ended("r1")
        await command(house, "retry", "r1")
        for _ in range(3):
            (branch,) = await house.tasks("b")
            held = [row.held_for for row in await house.rows("r1")].count("max_concurrency")
            await house.answer(branch, [], {"held": held})
        (then,) = await house.tasks("sum")
        assert [result["held"] for result in then.inputs["results"]] == [2, 1, 0]

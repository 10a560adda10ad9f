"""The way round of one run, and what happens when something goes wrong on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.presence import consumers_of
from flowkit.errors import WrongBroker
from flowkit.flow.events import Reported
from flowkit.flow.limits import Limits
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST


async def test_a_start_becomes_a_task_and_a_result_the_next_one(house):
    async with house.coordinator():
        await house.start("a", "r1", inputs={"x": 1})
        (task,) = await house.tasks("a")
        assert (task.run_id, task.inputs, task.attempt, task.tries) == ("r1", {"x": 1}, 1, 1)
        await house.answer(task, ["b", {"send": {"node": "b", "inputs": {"own": True}}}], {"y": 2})
        first, second = await house.tasks("b", 2)
        assert [first.inputs, second.inputs] == [{"y": 2}, {"own": True}]
        await house.answer(second, [], {"n": 2})
        await house.answer(first, [], {"n": 1})
        run = await house.run_ended("r1")
        assert (run.status, codec.loads(run.outputs)) == ("succeeded", {"results": [{"n": 1}, {"n": 2}]})


async def test_a_gather_joins_with_all_results(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        sends = [{"send": {"node": "m", "inputs": {"i": i}}}["send"] for i in range(20)]
        await house.answer(task, [{"gather": {"sends": sends, "then": "sum"}}], {"opener": 1})
        for branch in await house.tasks("m", 20):
            await house.answer(branch, [], {"i": branch.inputs["i"]})
        (then,) = await house.tasks("sum")
        assert then.inputs == {"opener": 1, "results": [{"i": i} for i in range(20)]}


async def test_the_end_of_a_run_is_published_and_again_for_the_same_start(house):
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    async with house.coordinator():
        for _ in range(2):
            await house.start("a", "r1")
            if not (await house.store.query(lambda queries: queries.run("r1"))):
                (task,) = await house.tasks("a")
                await house.answer(task, [], {"ok": True})
            (delivery,) = await ear.receive(1)
            ended = wire.decode(wire.RunEnded, delivery.body)
            assert (ended.run_id, ended.status, ended.outputs) == ("r1", "succeeded", {"ok": True})
            assert delivery.key == "succeeded.a"
        await house.start("a", "r1", inputs={"other": 1})
        (delivery,) = await ear.receive(1)
        assert wire.decode(wire.RunEnded, delivery.body).status == "conflict"
        (letter,) = await house.until(lambda queries: queries.dead(limit=9), "the other start is kept")
        assert (letter.reason, letter.run_id) == ("conflict", None)
        assert codec.loads(letter.body)["inputs"] == {"other": 1}
    await ear.close()


async def test_a_hundred_equal_starts_are_one_run(house):
    async with house.coordinator():
        await asyncio.gather(*(house.start("a", "same", inputs={"x": 1}) for _ in range(100)))
        (task,) = await house.tasks("a")
        await house.answer(task, ["b"])
        await house.tasks("b")
        assert len(await house.rows("same")) == 2


async def test_a_duplicate_result_publishes_nothing_and_is_recorded(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        for _ in range(3):
            await house.answer(task, ["b"])
        (only,) = await house.tasks("b")
        await house.answer(only)
        await house.run_ended("r1")
        seen = await house.until(lambda queries: queries.superseded("r1"), "superseded results")
        assert {reason for _, _, _, reason, _ in seen} <= {"the task is succeeded", "the run is succeeded"}
        state = await house.broker.inspect(house.topology.tasks("b").name)
        assert state.ready == 0


BAD = [
    (b"{", "not-json"),
    (b"\xff\xfe", "not-json"),
    (b"[" * 300 + b"]" * 300, "too-deep"),
    (b"17", "not-an-object"),
    (b'{"v": 2, "node": "a"}', "unknown-version"),
    (b'{"node": "../../x"}', "invalid"),
    (b'{"node": "a", "inputs": []}', "invalid"),
]


@pytest.mark.parametrize(("body", "reason"), BAD)
async def test_what_cannot_be_read_is_kept_with_the_reason_and_the_others_flow(house, body, reason):
    async with house.coordinator():
        await house.publish("starts", "a", body)
        await house.start("a", "fine")
        await house.tasks("a")
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert (letter.reason, letter.body, letter.queue) == (reason, body, house.topology.starts.name)


async def test_a_result_of_an_unknown_run_is_a_dead_letter_and_never_a_run(house):
    async with house.coordinator():
        ghost = wire.Task(task_id="00000000-0000-0000-0000-000000000007", run_id="ghost", node="a")
        await house.answer(ghost)
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert letter.reason == "unknown-run"
        assert await house.store.query(lambda queries: queries.run("ghost")) is None


async def test_a_result_that_breaks_the_contract_fails_its_task_and_says_why(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"fork": {}}])
        run = await house.run_ended("r1")
        assert run.status == "failed"
        assert "InvalidResult" in run.message


async def test_results_may_come_as_an_array(house):
    async with house.coordinator():
        for run in ("r1", "r2"):
            await house.start("a", run)
        tasks = await house.tasks("a", 2)
        results = [{"task_id": str(task.task_id), "run_id": task.run_id, "outputs": {"x": 1}} for task in tasks]
        await house.publish("results", "a.succeeded", results)
        for run in ("r1", "r2"):
            assert (await house.run_ended(run)).status == "succeeded"


async def test_a_part_of_an_array_that_names_no_task_is_a_dead_letter_of_its_own(house):
    async with house.coordinator():
        await house.start("a", "r1")
        [task] = await house.tasks("a")
        fine = {"task_id": str(task.task_id), "run_id": "r1", "outputs": {"x": 1}}
        await house.publish("results", "a.succeeded", [{"outputs": {}}, fine, 7])
        assert (await house.run_ended("r1")).status == "succeeded"
        letters = await house.until(lambda queries: len(found := queries.dead(limit=9)) == 2 and found, "dead letters")
        assert {(letter.reason, letter.body) for letter in letters} == {
            ("invalid", b'{"outputs":{}}'),
            ("not-an-object", b"7"),
        }


def poison(monkeypatch, run_id):
    """A run whose events make the fold raise."""
    from flowkit.coordinator import commit as module

    real = module.fold

    def fold(state, events, context):
        if any(event.run_id == run_id and isinstance(event, Reported) for event in events):
            raise ZeroDivisionError("a bug")
        return real(state, events, context)

    monkeypatch.setattr(module, "fold", fold)


async def begun(house, runs):
    """The first task of each run, at node a."""
    for run in runs:
        await house.start("a", run)
    return {task.run_id: task for task in await house.tasks("a", len(runs))}


async def test_one_result_that_makes_the_fold_raise_does_not_take_its_array_along(house, monkeypatch):
    poison(monkeypatch, "poison")
    runs = ["r1", "poison", "r2"]
    async with house.coordinator():
        tasks = await begun(house, runs)
        results = [{"task_id": str(tasks[run].task_id), "run_id": run, "outputs": {"of": run}} for run in runs]
        await house.publish("results", "a.succeeded", results)
        for run in ("r1", "r2"):
            assert (await house.run_ended(run)).status == "succeeded"
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert (letter.reason, letter.run_id) == ("rejected", "poison")
        assert codec.loads(letter.body) == results[1] | {"v": 1}
        assert "ZeroDivisionError: a bug" in letter.detail


async def test_nor_when_its_queue_gave_the_array_up(house, monkeypatch):
    poison(monkeypatch, "poison")
    runs = ["r1", "poison", "r2"]
    async with house.coordinator():
        tasks = await begun(house, runs)
        results = [{"task_id": str(tasks[run].task_id), "run_id": run} for run in runs]
        results += [{"task_id": str(tasks["r1"].task_id), "run_id": ghost} for ghost in ("ghost", "other")]
        queue = house.topology.results.name
        await house.publish("dead", queue, results, headers={"x-death": [{"reason": "delivery_limit"}]})
        for run in ("r1", "r2"):
            assert (await house.run_ended(run)).status == "succeeded"
        letters = await house.until(lambda queries: len(found := queries.dead(limit=9)) == 3 and found, "dead letters")
        assert {(letter.run_id, letter.reason): codec.loads(letter.body) for letter in letters} == {
            ("poison", "rejected"): results[1] | {"v": 1},
            ("ghost", "unknown-run"): results[3] | {"v": 1},
            ("other", "unknown-run"): results[4] | {"v": 1},
        }


async def test_one_culprit_among_many_results_costs_few_transactions(house, monkeypatch):
    poison(monkeypatch, "poison")
    runs = [f"r{number}" for number in range(31)] + ["poison"]
    async with house.coordinator():
        tasks = await begun(house, runs)
        real, commits = Ledger.commit, []

        async def commit(ledger, events):
            commits.append(events)
            return await real(ledger, events)

        monkeypatch.setattr(Ledger, "commit", commit)
        results = [{"task_id": str(tasks[run].task_id), "run_id": run} for run in runs]
        await house.publish("results", "a.succeeded", results)
        for run in runs[:-1]:
            assert (await house.run_ended(run)).status == "succeeded"
        with_results = [one for one in commits if not callable(one) and one]
        assert len(with_results) <= 2 + 2 * 5  # the batch, then halves of 32 down to one


async def test_one_message_that_makes_the_fold_raise_is_dead_and_the_batch_goes_on(house, monkeypatch):
    from flowkit.coordinator import commit as module

    real = module.fold

    def fold(state, events, context):
        if any(event.run_id == "poison" for event in events):
            raise ZeroDivisionError("a bug")
        return real(state, events, context)

    monkeypatch.setattr(module, "fold", fold)
    starts = [("r1", "a"), ("poison", "a"), ("r2", "a")]
    await house.broker.declare(house.topology.standing)
    for run, node in starts:
        await house.start(node, run)
    async with house.coordinator():
        tasks = await house.tasks("a", 2)
        assert {task.run_id for task in tasks} == {"r1", "r2"}
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert letter.reason == "rejected"
        assert "ZeroDivisionError: a bug" in letter.detail


async def test_a_delayed_send_is_released_by_its_timer(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"send": {"node": "b", "delay": 0.05}}], {"x": 1})
        (later,) = await house.tasks("b")
        assert later.inputs == {"x": 1}


async def test_a_retry_comes_again_with_the_next_attempt_and_the_same_id(house):
    async with house.coordinator():
        await house.start("a", "r1", inputs={"x": 1})
        (task,) = await house.tasks("a")
        await house.answer(task, status="retry", retry_in=0.01, attempt=1)
        (again,) = await house.tasks("a")
        assert (again.task_id, again.attempt, again.tries, again.inputs) == (task.task_id, 2, 2, {"x": 1})


async def test_what_was_committed_and_never_published_is_sent_by_the_next_coordinator(house, monkeypatch):
    from flowkit.coordinator.outbox import Outbox

    class Killed(Exception):
        pass

    async def crash(self, committed):
        raise Killed

    async def until_killed():
        async with house.coordinator():
            await house.start("a", "r1")
            await house.until(lambda queries: queries.run("r1"), "the run")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "deliver", crash)
        with pytest.raises(Killed):
            await until_killed()
    async with house.coordinator(alone=True):
        (task,) = await house.tasks("a")
        assert task.run_id == "r1"


async def test_a_broker_of_another_store_is_refused(house, tmp_path):
    from flowkit.store import open_store
    from tests.coordinator.house import House

    async with house.coordinator():
        pass
    other = await open_store(f"sqlite:///{tmp_path}/other.db")
    try:
        with pytest.raises(WrongBroker, match="--take-over"):
            async with House(house.broker, other, house.topology).coordinator():
                pass
        async with House(house.broker, other, house.topology).coordinator(take_over=True):
            pass
    finally:
        await other.close()


async def test_a_wiped_broker_is_filled_again(house):
    async with house.coordinator():
        await house.start("a", "r1", inputs={"x": 1})
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.sent_at], "the mark of being sent")
        house.broker.wipe()
        (task,) = await house.tasks("a")
        assert task.inputs == {"x": 1}
        await house.answer(task, [], {"ok": True})
        assert (await house.run_ended("r1")).status == "succeeded"


async def test_logs_are_archived_once_through_restarts(house):
    lines = [
        {
            "ts": 1.0 + i,
            "level": "info",
            "message": f"line {i} \0",
            "worker": "w",
            "seq": i,
            "run_id": "r1",
            "node": "a",
        }
        for i in range(6)
    ]
    await house.broker.declare(house.topology.standing)

    async def log(part):
        sent = Outgoing(house.topology.name("logs"), "", codec.dumps(part), type="flowkit.log", durable=False)
        assert await house.broker.publish([sent]) == [None]

    from flowkit.broker import Outgoing

    async with house.coordinator():
        await log(lines[:2])
        await log(lines[2])
        await house.until(lambda queries: len(queries.logs(run_id="r1")) == 3, "three lines")
    await log(lines[2:5])  # one of them twice
    async with house.coordinator():
        await log(lines[5])
        await house.until(lambda queries: len(queries.logs(run_id="r1")) == 6, "six lines")
    found = await house.store.query(lambda queries: queries.logs(run_id="r1"))
    assert [line.message for line in found] == [line["message"] for line in lines]


async def test_workers_are_recorded_and_their_queues_declared(house):
    async with house.coordinator():
        await house.publish(
            "workers", "", {"worker": "w1", "version": "1", "nodes": [{"name": "fresh"}]}, durable=False
        )
        (worker,) = await house.until(lambda queries: queries.workers(seen_since=0), "the worker")
        assert worker.name == "w1"
        async with asyncio.timeout(5):
            while await house.broker.inspect(house.topology.tasks("fresh").name) is None:
                await asyncio.sleep(0)


SWEEPING = replace(FAST, sweep_every=0.02)


async def test_a_task_that_vanished_from_its_queue_is_sent_again(house):
    async with house.coordinator(pace=SWEEPING):
        await house.start("a", "r1")
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.sent_at], "the mark of being sent")
        await house.broker.delete(house.topology.tasks("a").name)
        (task,) = await house.tasks("a")
        assert task.run_id == "r1"


async def test_a_worker_that_only_another_coordinator_has_heard_of_is_no_foreigner(house):
    async with house.coordinator(pace=SWEEPING):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")  # acknowledged, and forgotten
        told = wire.Worker(worker="w1", nodes=(wire.NodeInfo(name="a"),))
        await house.store.transact(lambda transaction: transaction.record_workers([told], transaction.now()))
        (again,) = await house.tasks("a")
        assert again.task_id == task.task_id


async def test_a_task_that_a_worker_lists_or_a_foreigner_may_hold_is_left_alone(house):
    from flowkit.coordinator.sweeper import Sweeper

    looks: asyncio.Queue[int] = asyncio.Queue()
    real = Sweeper.look

    async def look(self):
        found = await real(self)
        looks.put_nowait(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweeper, "look", look)
        async with house.coordinator(pace=SWEEPING):
            await house.start("a", "r1")
            (task,) = await house.tasks("a")  # this consumer is the foreigner
            assert [await looks.get() for _ in range(4)] == [0] * 4
            told = {"worker": "w1", "nodes": [{"name": "a"}], "running": [[str(task.task_id), 1, None]]}
            await house.publish("workers", "", told, durable=False)
            await house.until(lambda queries: queries.workers(seen_since=0), "the worker")
            assert [await looks.get() for _ in range(4)] == [0] * 4


async def test_a_second_consumer_of_a_worker_that_announces_it_is_no_foreigner(house):
    async with house.coordinator(pace=SWEEPING):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")  # acknowledged, and forgotten
        more = house.broker.consume(house.topology.tasks("a"), prefetch=1)
        told = wire.Worker(worker="w1", nodes=(wire.NodeInfo(name="a"),), consumers={"a": 2})
        await house.store.transact(lambda transaction: transaction.record_workers([told], transaction.now()))
        deliveries = asyncio.create_task(more.receive(1)), asyncio.create_task(house.consumer("a").receive(1))
        done, left = await asyncio.wait(deliveries, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        again = wire.decode(wire.Task, done.pop().result()[0].body)
        assert again.task_id == task.task_id
        for waiting in left:
            waiting.cancel()
        await asyncio.wait(left)
        await more.close()


def test_consumers_are_counted_as_their_workers_announce_them():
    nodes = (wire.NodeInfo(name="a"), wire.NodeInfo(name="b"))
    workers = [
        wire.Worker(worker="w1", nodes=nodes, consumers={"a": 2}),
        wire.Worker(worker="w2", nodes=nodes, consumers={"b": 0, "other": 7}),
        wire.Worker(worker="w3", nodes=nodes[:1]),
    ]
    assert consumers_of(workers) == {"a": 4, "b": 1}


async def test_a_node_without_a_worker_is_said(house, caplog):
    async with house.coordinator(pace=replace(FAST, lonely_every=0.02)):
        await house.start("lonely", "r1")
        async with asyncio.timeout(5):
            while "node lonely has no worker" not in caplog.text:
                await asyncio.sleep(0)


async def test_the_trace_of_a_start_reaches_every_task(house):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with house.coordinator():
        await house.publish("starts", "a", {"node": "a", "run_id": "r1"}, headers={"traceparent": trace})
        await house.publish("starts", "a", {"node": "a", "run_id": "r2"}, headers={"traceparent": "nonsense"})
        traces = {}
        consumer = house.broker.consume(house.topology.tasks("a"), prefetch=10)
        while len(traces) < 2:
            for delivery in await consumer.receive(10):
                traces[delivery.correlation_id] = delivery.headers.get("traceparent")
                await consumer.ack([delivery])
                await house.answer(wire.decode(wire.Task, delivery.body), ["b"], attempt=1, status="retry", retry_in=0)
        assert traces == {"r1": trace, "r2": None}
        (again,) = list(await consumer.receive(1))
        assert again.headers.get("traceparent") == traces[again.correlation_id], "resolved from the row, too"
        await consumer.close()


async def test_limits_are_settings(house):
    async with house.coordinator(limits=Limits(max_tasks=2)):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, ["b", "b"])
        assert "max_tasks" in (await house.run_ended("r1")).message

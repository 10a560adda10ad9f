"""What the client publishes, and how it waits."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from flowkit import Client
from flowkit.broker.memory import MemoryBroker
from flowkit.errors import Conflict, InvalidPayload, Refused, RunFailed, TimedOut, UsageError
from flowkit.wire import messages as wire
from tests.client.coordinator import TOPOLOGY


async def test_start_publishes_a_start_with_all_it_was_given(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", {"a": 1}, id="r1", tags={"tenant": "x"}, delay=5, deadline=60)
        (start,) = await coordinator.starts(1)
    assert run.id == "r1"
    assert start == wire.Start(node="add", inputs={"a": 1}, run_id="r1", tags={"tenant": "x"}, delay=5, deadline=60)


async def test_without_an_id_each_run_gets_one_of_its_own(url, coordinator):
    async with Client(url) as client:
        runs = await client.start_many("add", [{"n": n} for n in range(20)])
        starts = await coordinator.starts(20)
    assert len({run.id for run in runs}) == 20
    assert [(start.run_id, start.inputs) for start in starts] == [(run.id, {"n": n}) for n, run in enumerate(runs)]


async def test_outputs_of_many_runs_come_to_those_who_wait_for_them(url, coordinator):
    async with Client(url) as client:
        runs = await client.start_many("add", [{"n": n} for n in range(50)])
        for start in reversed(await coordinator.starts(50)):
            await coordinator.end(start, outputs={"doubled": 2 * start.inputs["n"]})
        outputs = await asyncio.gather(*(run.outputs(timeout=5) for run in runs))
    assert outputs == [{"doubled": 2 * n} for n in range(50)]


async def test_a_run_that_ended_before_anyone_waited_has_been_heard(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add")
        (start,) = await coordinator.starts(1)
        await coordinator.end(start, outputs={"x": 1})
        assert await run.outputs(timeout=5) == {"x": 1}
        assert run.ended
        assert await run.outputs(timeout=0) == {"x": 1}


async def test_inputs_that_the_program_changes_later_are_those_of_the_run_as_it_was_started(url, coordinator):
    items, more = [1], {"n": [1]}
    async with Client(url) as client:
        run = await client.start("add", {"items": items})
        (start,) = await coordinator.starts(1)
        items.append(object())
        fingerprint = wire.value_fingerprint(start.node, start.inputs)  # as a coordinator says it
        await coordinator.end(start, outputs={"x": 1}, fingerprint=fingerprint)
        assert await run.outputs(timeout=5) == {"x": 1}
        again = await run.rerun(inputs=more)
        more["n"].append(2)
        assert again.request.input == {"n": [1]}


async def test_a_failed_run_raises_with_its_reason(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", id="r1")
        (start,) = await coordinator.starts(1)
        await coordinator.end(start, "failed", error=wire.RunError(type="KeyError", message="'a'"))
        with pytest.raises(RunFailed, match=r"run r1 failed: KeyError: 'a'"):
            await run.outputs(timeout=5)


async def test_waiting_ends_with_its_timeout_and_the_run_goes_on(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", id="r1")
        (start,) = await coordinator.starts(1)
        with pytest.raises(TimedOut, match="r1 has not ended"):
            await run.outputs(timeout=0.01)
        await coordinator.end(start, outputs={"x": 1})
        assert await run.outputs(timeout=5) == {"x": 1}


async def test_a_conflict_is_raised_to_the_one_who_caused_it(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", {"a": 2}, id="taken")
        (start,) = await coordinator.starts(1)
        await coordinator.end(start, "conflict")
        with pytest.raises(Conflict, match="taken"):
            await run.outputs(timeout=5)


async def test_somebody_elses_conflict_with_a_run_is_not_the_conflict_of_those_who_wait_for_it(url, coordinator):
    async with Client(url) as mine, Client(url) as others:
        run = await mine.start("add", {"a": 1}, id="r1")
        (start,) = await coordinator.starts(1)
        late = await others.start("add", {"a": 2}, id="r1")
        (refused,) = await coordinator.starts(1)
        await coordinator.end(refused, "conflict")
        await coordinator.end(start, outputs={"x": 1})
        assert await run.outputs(timeout=5) == {"x": 1}
        with pytest.raises(Conflict):
            await late.outputs(timeout=5)


async def test_the_same_id_with_other_inputs_conflicts_within_a_client_at_once(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", {"a": 1}, id="r1")
        with pytest.raises(Conflict):
            await client.start("add", {"a": 2}, id="r1")
        again = await client.start("add", {"a": 1}, id="r1")
        first, _second = await coordinator.starts(2)
        await coordinator.end(first, outputs={"x": 1})
        assert await run.outputs(timeout=5) == await again.outputs(timeout=5) == {"x": 1}


async def test_after_a_reconnect_the_starts_of_runs_still_awaited_are_sent_again(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    async with Client(broker=broker) as client:
        ended, open_ = await client.start("add", id="ended"), await client.start("add", id="open")
        first, _ = await coordinator.starts(2)
        await coordinator.end(first)
        await ended.outputs(timeout=5)
        broker.disconnect()
        (again,) = await coordinator.starts(1)
        assert again.run_id == "open"
        await coordinator.end(again, outputs={"x": 1})
        assert await open_.outputs(timeout=5) == {"x": 1}


async def test_runs_that_nobody_holds_are_forgotten(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    async with Client(broker=broker) as client:
        kept = await client.start("add", id="kept")
        await client.start("add", id="dropped")
        await coordinator.starts(2)
        gc.collect()
        broker.disconnect()
        (again,) = await coordinator.starts(1)
        assert again.run_id == kept.id


async def test_messages_of_others_and_unreadable_ones_do_no_harm(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", id="r1")
        (start,) = await coordinator.starts(1)
        await coordinator.publish(b"no json", "succeeded.add")
        await coordinator.end(start.model_copy(update={"run_id": "somebody-else"}))
        await coordinator.end(start.model_copy(update={"node": "other"}), "conflict")  # somebody's conflict with r1
        await coordinator.end(start, outputs={"x": 1})
        assert await run.outputs(timeout=5) == {"x": 1}


async def test_commands_reach_the_commands_queue(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", id="r1")
        await run.signal("approved", {"by": "me"})
        await run.cancel()
        await run.cancel(grace=30)
        await client.run("r2").pause()
        await client.run("r2").resume()
        await client.run("r2").retry()
        broker = MemoryBroker.named(url.removeprefix("memory:"))
        queue = broker.consume(TOPOLOGY.commands, prefetch=10)
        commands = [wire.decode(wire.Command, one.body) for one in await queue.receive(10)]
        await broker.close()
    assert [(one.kind, one.run_id, one.name, one.input) for one in commands] == [
        ("signal", "r1", "approved", {"by": "me"}),
        ("cancel", "r1", None, None),
        ("cancel", "r1", None, None),
        ("pause", "r2", None, None),
        ("resume", "r2", None, None),
        ("retry", "r2", None, None),
    ]
    assert commands[0].id != commands[1].id
    assert [one.grace for one in commands[:3]] == [None, None, 30]


@pytest.mark.parametrize("name", ["x" * 101, 7])
async def test_a_name_that_no_signal_can_have(url, name):
    async with Client(url) as client:
        with pytest.raises(UsageError, match="cannot signal run r1: name: "):
            await client.run("r1").signal(name)


async def test_a_signal_and_a_rerun_with_what_cannot_be_kept(url):
    async with Client(url) as client:
        with pytest.raises(InvalidPayload, match=r"input\.n: an integer over 64 bits"):
            await client.run("r1").signal("go", {"n": 2**64})
        with pytest.raises(InvalidPayload, match=r"inputs\.n: an integer over 64 bits"):
            await client.run("r1").rerun(inputs={"n": -(2**63) - 1})


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), "soon", [1]])
async def test_a_grace_that_is_no_number_of_seconds(url, grace):
    async with Client(url) as client:
        with pytest.raises(UsageError, match="cannot cancel run r1: grace: "):
            await client.run("r1").cancel(grace=grace)


@pytest.mark.parametrize(
    ("node", "inputs", "words", "error", "says"),
    [
        ("no node", {}, {}, UsageError, "node 'no node': a name is a letter"),
        ("add", {"a": {1, 2}}, {}, InvalidPayload, "inputs.a: set is no JSON type"),
        ("add", {"a": float("nan")}, {}, InvalidPayload, "inputs.a"),
        ("add", {}, {"id": "bad id"}, UsageError, "run id 'bad id': expected a letter or digit"),
        ("add", {}, {"id": ""}, UsageError, "run id ''"),
        ("add", {}, {"delay": -1}, UsageError, "delay"),
        ("add", {}, {"tags": {"a": 1}}, UsageError, "tags"),
        ("add", {}, {"tags": {"a": "\ud800"}}, UsageError, "tags.a"),
        ("add", {}, {"tags": {"a" * 201: "x"}}, UsageError, "should have at most 200 characters"),
        ("add", {}, {"tags": {"a": "x" * 2_001}}, UsageError, "tags.a: String should have at most 2000 characters"),
        ("add", {}, {"tags": {str(n): "" for n in range(101)}}, UsageError, "tags: .* at most 100 items"),
        ("add", {"a": [2**64]}, {}, InvalidPayload, r"inputs.a\[0\]: an integer over 64 bits does not fit JSON here"),
    ],
)
async def test_what_cannot_be_started_is_said_before_anything_is_sent(url, node, inputs, words, error, says):
    async with Client(url) as client:
        with pytest.raises(error, match=says):
            await client.start(node, inputs, **words)


async def test_inputs_over_the_size_limit_are_refused(url):
    async with Client(broker=MemoryBroker(max_message_bytes=1000)) as client:
        with pytest.raises(UsageError, match="too large"):
            await client.start("add", {"a": "x" * 2000})


async def test_without_listening_a_run_can_be_started_but_not_awaited(url, coordinator):
    async with Client(url, listen=False) as client:
        run = await client.start("add")
        await coordinator.starts(1)
        with pytest.raises(UsageError, match="listen=False"):
            await run.outputs()


async def test_a_start_waits_for_somebody_to_declare_its_queue(monkeypatch, url):
    async def forbidden(self, parts):
        return list(parts)

    broker = MemoryBroker.named(url.removeprefix("memory:"))
    declare = broker.declare
    monkeypatch.setattr(MemoryBroker, "declare", forbidden)
    async with Client(url, listen=False, patience=5) as client:
        starting = asyncio.create_task(client.start("add", id="r1"))
        await asyncio.sleep(0)
        await declare(TOPOLOGY.standing)
        assert (await starting).id == "r1"
    await broker.close()


async def test_a_start_that_nobody_takes_says_what_is_missing(monkeypatch, url):
    async def forbidden(self, parts):
        return list(parts)

    monkeypatch.setattr(MemoryBroker, "declare", forbidden)
    async with Client(url, listen=False, patience=0.05) as client:
        with pytest.raises(TimedOut, match=r"nobody has declared 'flowkit.starts'.*flowkit coordinator"):
            await client.start("add")


async def test_a_client_needs_an_address_or_a_broker_and_its_block():
    with pytest.raises(UsageError, match="address or a broker"):
        Client()
    with pytest.raises(UsageError, match="async with"):
        await Client("memory:nowhere").start("add")


def test_the_synchronous_twin_does_the_same():
    """Its broker lives in the thread of its loop, so the coordinator of this test does too."""
    from tests.client.coordinator import Coordinator

    threads = threading.active_count()
    with Client.sync("memory:sync-twin") as client:
        loop = client.thread()

        async def prepare():
            coordinator = Coordinator(loop.client._broker)
            await coordinator.declare()
            return coordinator

        async def answer(coordinator, status="succeeded", **words):
            for start in await coordinator.starts(1):
                await coordinator.end(start, status, **words)

        coordinator = loop.run(prepare())
        run = client.start("add", {"a": 1}, id="r1")
        loop.run(answer(coordinator, outputs={"x": 1}))
        assert (run.id, run.outputs(timeout=5)) == ("r1", {"x": 1})
        run.signal("go")
        run.cancel(grace=1.5)
        other = client.run("other")
        other.pause()
        other.resume()
        other.retry()
        (failing,) = client.start_many("add", [{"a": 2}])
        loop.run(answer(coordinator, "failed", message="no"))
        with pytest.raises(RunFailed, match="no"):
            failing.outputs(timeout=5)
    assert threading.active_count() == threads
    with pytest.raises(UsageError, match="this client is closed"):
        client.start("add")


@pytest.mark.parametrize("queue", [TOPOLOGY.starts, TOPOLOGY.commands])
async def test_a_full_queue_is_named_as_such(url, coordinator, queue):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    async with Client(url, patience=0.5) as client:
        await broker.declare(TOPOLOGY.standing)
        broker.limit_length(queue.name, 0)
        with pytest.raises(
            Refused, match=rf"queue '{queue.name}' is full, it has refused messages for 0.5 s.*max-length"
        ):
            await (client.start("add") if queue == TOPOLOGY.starts else client.run("r1").cancel())
    await broker.close()


async def test_a_start_waits_until_a_full_queue_has_room(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    async with Client(url) as client:
        await broker.declare(TOPOLOGY.standing)
        broker.limit_length(TOPOLOGY.starts.name, 2)
        starting = asyncio.create_task(client.start_many("add", [{"n": n} for n in range(7)]))
        assert [start.inputs["n"] for start in await coordinator.starts(7)] == list(range(7))
        assert len(await starting) == 7
    await broker.close()


async def test_an_exchange_that_is_deleted_is_declared_again_by_who_needs_it(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    async with Client(url) as client:
        await client.start("add", id="r1")
        broker.delete_exchange(TOPOLOGY.name("starts"))
        await client.start("add", id="r2")
        assert [start.run_id for start in await coordinator.starts(2)] == ["r1", "r2"]
    await broker.close()

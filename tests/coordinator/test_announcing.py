"""Whoever began a run hears of its end, and whoever gave a command hears of its refusal, whatever died in between."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import uuid4

import pytest

from flowkit.broker.memory import MemoryBroker
from flowkit.broker.rabbit.broker import RabbitBroker
from flowkit.errors import StoreUnreachable
from flowkit.wire import codec
from flowkit.wire import messages as wire


class Killed(Exception):
    """The coordinator was killed here."""


async def command(house, kind, run_id, **more):
    command_id = more.pop("id", None) or str(uuid4())
    await house.publish("commands", kind, {"id": command_id, "kind": kind, "run_id": run_id, **more})
    return command_id


async def cancelled(house):
    await house.start("a", "r1")
    await house.tasks("a")
    await command(house, "cancel", "r1")


async def past_its_deadline(house):
    await house.start("a", "r1", deadline=0.05)


async def failed_by_a_wait(house):
    await house.start("a", "r1")
    (task,) = await house.tasks("a")
    await house.answer(task, [{"wait": {"name": "go", "then": "b", "timeout": 0.05}}])


async def answered(house):
    await house.start("a", "r1")
    (task,) = await house.tasks("a")
    await house.answer(task, [])


ENDS = [cancelled, past_its_deadline, failed_by_a_wait, answered]


async def killed_before(house, monkeypatch, fits, end, *, broker=MemoryBroker):
    """Let this happen under a coordinator that is killed before it publishes a message that fits."""
    publish, killed = broker.publish, asyncio.Event()

    async def mortal(self, messages):
        if any(map(fits, messages)):
            killed.set()
            raise Killed
        return await publish(self, messages)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(broker, "publish", mortal)
        async with house.coordinator():
            await end(house)
            await killed.wait()
    assert killed.is_set()


def is_end(message):
    return message.type == wire.RunEnded.TYPE


async def end_of(house, ear):
    async with asyncio.timeout(10):
        (delivery,) = await ear.receive(1)
    return wire.decode(wire.RunEnded, delivery.body)


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_is_announced_after_a_death_behind_the_commit(house, monkeypatch, end):
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    await killed_before(house, monkeypatch, is_end, end)
    async with house.coordinator():
        assert (await end_of(house, ear)).run_id == "r1"
    await ear.close()


async def test_an_end_is_announced_after_a_death_on_real_services(real_house, monkeypatch):
    house = real_house
    await house.broker.declare(house.topology.exchanges)
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    await ear.wait_connected()
    await killed_before(house, monkeypatch, is_end, cancelled, broker=RabbitBroker)
    async with house.coordinator():
        assert (await end_of(house, ear)).status == "cancelled"
    await ear.close()


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_is_announced_when_the_answer_to_its_commit_is_lost(house, monkeypatch, end):
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    transact, lost = type(house.store).transact, []

    async def loses_its_answer(self, function):
        result = await transact(self, function)
        if getattr(result, "ended", None) and not lost:
            lost.append(result)
            raise StoreUnreachable("postgresql://db", "the connection was lost while committing")
        return result

    monkeypatch.setattr(type(house.store), "transact", loses_its_answer)
    async with house.coordinator():
        await end(house)
        assert (await end_of(house, ear)).run_id == "r1"
    assert lost
    await ear.close()


async def test_an_end_that_was_announced_is_not_announced_again(house):
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    async with house.coordinator():
        await answered(house)
        assert (await end_of(house, ear)).run_id == "r1"
    async with house.coordinator(alone=True):
        await house.start("a", "r2", deadline=0.05)
        assert (await end_of(house, ear)).run_id == "r2"
    await ear.close()


async def a_refused_rerun(house):
    await answered(house)
    await house.run_ended("r1")
    await command(house, "rerun", "r1", new_run_id="r1-again", task_id=str(uuid4()))


def is_refusal(message):
    return wire.REFUSED in message.headers


def is_dead_letter(message):
    return wire.REASON in message.headers


@pytest.mark.parametrize("fits", [is_refusal, is_dead_letter])
async def test_a_refused_rerun_is_answered_and_kept_after_a_death_behind_the_commit(house, monkeypatch, fits):
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    await killed_before(house, monkeypatch, fits, a_refused_rerun)
    async with house.coordinator():
        while (await end_of(house, ear)).run_id != "r1-again":
            pass
        (letter,) = await house.until(lambda queries: queries.dead(limit=9), "the refused command")
        assert letter.reason == "refused"
    await ear.close()


async def test_a_refused_command_that_comes_again_gets_the_same_answer(house):
    """Although the run would take it by now: what was said of it counts."""
    async with house.coordinator():
        await house.start("a", "r1")
        await house.tasks("a")
        resume = await command(house, "resume", "r1")
        await house.until(lambda queries: queries.dead(limit=9), "the refusal")
        await command(house, "pause", "r1")
        await house.until(lambda queries: queries.run("r1").status == "paused", "the pause")
        await command(house, "resume", "r1", id=resume)
        letters = await house.until(lambda queries: _at_least(2, queries.dead(limit=9)), "the refusal again")
        assert len({letter.detail for letter in letters}) == 1
        assert (await house.store.query(lambda queries: queries.run("r1"))).status == "paused"


async def test_a_signal_that_was_refused_counts_when_its_letter_is_replayed(house):
    """Its run had failed when it came; the run goes on, and the letter is replayed: the wait goes on."""
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, ["b", {"wait": {"name": "go", "then": "c"}}])
        (bad,) = await house.tasks("b")
        await house.answer(bad, status="failed", error={"type": "ValueError", "message": "boom"})
        await house.run_ended("r1")
        await command(house, "signal", "r1", name="go", input={"ok": True})
        (letter,) = await house.until(lambda queries: queries.dead(limit=9), "the refused signal")
        await command(house, "retry", "r1")
        await house.tasks("b")
        await command(house, "replay", None, letters=[letter.id])
        (then,) = await house.tasks("c")
        assert then.inputs["signal"] == {"ok": True}


async def a_refused_replay(house):
    await command(house, "replay", None, letters=[4711])


async def test_what_a_replay_could_not_do_is_kept_after_a_death(house, monkeypatch):
    await killed_before(house, monkeypatch, is_dead_letter, a_refused_replay)
    async with house.coordinator():
        (letter,) = await house.until(lambda queries: queries.dead(limit=9), "the refused replay")
        assert "4711" in letter.detail


async def test_a_command_that_its_queue_gave_up_and_that_is_refused_is_kept(house):
    async with house.coordinator():
        await house.start("a", "r1")
        await house.tasks("a")
        body = codec.dumps({"id": str(uuid4()), "kind": "resume", "run_id": "r1"})
        death = {"x-death": [{"reason": "delivery_limit", "queue": house.topology.commands.name}]}
        await house.publish("dead", house.topology.commands.name, body, headers=death)
        (letter,) = await house.until(lambda queries: queries.dead(limit=9), "the refused command")
        assert (letter.reason, letter.body) == ("refused", body)


async def test_an_early_signal_outlives_the_failure_of_its_run(house):
    async with house.coordinator():
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, ["b", "c"])
        (good,), (bad,) = await house.tasks("b"), await house.tasks("c")
        await command(house, "signal", "r1", name="go", input={"early": True})
        await house.until(lambda queries: queries.signals("r1"), "the kept signal")
        await house.answer(bad, status="failed", error={"type": "ValueError", "message": "boom"})
        await house.run_ended("r1")
        await command(house, "retry", "r1")
        (good,), _ = await house.tasks("b"), await house.tasks("c")
        await house.answer(good, [{"wait": {"name": "go", "then": "d"}}], attempt=good.attempt)
        (then,) = await house.tasks("d")
        assert then.inputs["signal"] == {"early": True}


def _at_least(count, found):
    return found if len(found) >= count else []

"""What must not stop a coordinator, and what it must not overlook."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.broker import Outgoing
from flowkit.broker.memory import MemoryBroker
from flowkit.coordinator import Coordinator
from flowkit.coordinator.identity import Identity
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.relay import Relay
from flowkit.errors import StoreUnreachable
from flowkit.flow.limits import Limits
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST, House


async def owner(house):
    return house.topology.owner(await house.store.query(lambda queries: queries.meta("id")))


async def test_a_message_larger_than_it_may_send_is_kept_in_part_and_the_others_flow(house):
    modest = House(MemoryBroker(house.broker._server, max_message_bytes=100_000), house.store, house.topology)
    async with modest.coordinator():
        await house.publish("starts", "a", b"{" + b"x" * 200_000)
        await house.start("a", "fine")
        await house.tasks("a")
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert letter.reason == "not-json"
        assert letter.body.startswith(b"{xxx")
        assert "of 200,001 bytes are kept" in letter.detail


@pytest.mark.parametrize("part", ["queue", "exchange"])
async def test_a_dead_letter_does_not_wait_for_its_queue(house, monkeypatch, part):
    declare = MemoryBroker.declare

    async def forbid(self, parts):
        """Declare all but what dead letters need, as a login that may not."""
        wanted = list(parts)
        forbidden = [one for one in wanted if one.name == house.topology.dead.name]
        await declare(self, [one for one in wanted if one not in forbidden])
        return forbidden

    async with house.coordinator():
        monkeypatch.setattr(MemoryBroker, "declare", forbid)
        if part == "queue":
            await house.broker.delete(house.topology.dead.name)
        else:
            house.broker.delete_exchange(house.topology.dead.name)
        for number in range(3):  # one batch may be in its transaction behind another
            await house.publish("starts", "a", b"{")
            await house.start("a", f"r{number}")
            await house.tasks("a")
        letters = await house.until(lambda queries: len(found := queries.dead(limit=10)) == 3 and found, "letters")
        assert {letter.reason for letter in letters} == {"not-json"}


async def test_what_somebody_puts_among_the_dead_letters_is_kept_and_not_taken(house):
    async with house.coordinator():
        await house.publish("dead", house.topology.starts.name, {"node": "a", "run_id": "r1"})
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert letter.reason == "unexplained"
        assert await house.store.query(lambda queries: queries.run("r1")) is None


async def test_a_wipe_is_recognised_while_what_was_stranded_waits_to_be_sent(house, monkeypatch):
    claimed = asyncio.Event()
    look, claim = Relay.look, Identity.claim

    async def stuck(self, *, after=None):
        if after is not None:  # at the start
            return await look(self, after=after)
        return await asyncio.get_running_loop().create_future()

    async def claims(self):
        await claim(self)
        claimed.set()

    monkeypatch.setattr(Relay, "look", stuck)
    monkeypatch.setattr(Identity, "claim", claims)
    async with house.coordinator(alone=True):
        claimed.clear()
        house.broker.disconnect()
        await claimed.wait()
        house.broker.wipe()
        async with asyncio.timeout(5):
            while await house.broker.missing([await owner(house)]):
                await asyncio.sleep(0.01)


async def test_a_coordinator_that_was_killed_while_it_claimed_its_broker_finds_it_its_own(house, monkeypatch):
    class Killed(Exception):
        pass

    declare, markers, mine = MemoryBroker.declare, [], await owner(house)

    async def killed_behind_the_claim(self, parts):
        for part in parts:
            await declare(self, [part])
            if part == mine:
                raise Killed

    async def begin():
        async with house.coordinator():
            markers.append("ready")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryBroker, "declare", killed_behind_the_claim)
        with pytest.raises(Killed):
            await begin()
    await begin()
    assert markers == ["ready"]
    assert await house.broker.missing([mine]) == []


async def test_a_broker_that_is_wiped_while_it_is_claimed_is_filled_again(house, monkeypatch):
    async with house.coordinator():
        await house.start("a", "r1", inputs={"x": 1})
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.sent_at], "the mark of being sent")
    declare, wiped = MemoryBroker.declare, []

    async def wipe_before(self, parts):
        if not wiped:
            wiped.append(True)
            self.wipe()
        return await declare(self, parts)

    monkeypatch.setattr(MemoryBroker, "declare", wipe_before)
    async with house.coordinator():
        (task,) = await house.tasks("a")
        assert (task.inputs, wiped) == ({"x": 1}, [True])


async def test_markers_on_a_broker_that_was_wiped_behind_the_refill_do_not_count(house, monkeypatch):
    class Killed(Exception):
        pass

    async def begin():
        async with house.coordinator():
            raise AssertionError("it was killed before")

    async with house.coordinator():
        await house.start("a", "r1", inputs={"x": 1})
        await house.until(lambda queries: [row for row in queries.tasks("r1") if row.sent_at], "the mark of being sent")
    (row,) = await house.rows("r1")
    house.broker.wipe()
    declare, marker = MemoryBroker.declare, await owner(house)

    async def wiped_and_killed(self, parts):
        parts = list(parts)
        if marker not in parts:
            return await declare(self, parts)
        # What was refilled has been sent meanwhile, by other loops or another coordinator, and is lost again.
        await house.store.transact(lambda transaction: transaction.mark_sent([("r1", row.id, 1)], transaction.now()))
        self.wipe()
        await declare(self, parts)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MemoryBroker, "declare", wiped_and_killed)
        with pytest.raises(Killed):
            await begin()
    async with house.coordinator():
        (task,) = await house.tasks("a")
        assert task.inputs == {"x": 1}


async def test_a_node_that_is_announced_to_a_wiped_broker_is_declared_when_its_exchanges_are(house):
    outbox = Outbox(house.broker, house.topology, Ledger(house.store, Limits(), b""), max_nodes=10)
    house.broker.wipe()
    await outbox.declare({"late"})  # holds up nobody
    await house.broker.declare(house.topology.standing)  # as whoever recognises the wipe does
    await outbox.declare({"late"})
    assert await house.broker.inspect(house.topology.tasks("late").name) is not None


async def test_the_archive_begins_anew_when_another_coordinator_has_found_a_new_stream(house):
    async def log(message):
        line = {"ts": 1.0, "level": "info", "message": message, "run_id": "r1"}  # of a program that numbers nothing
        sent = Outgoing(house.topology.name("logs"), "", codec.dumps(line), type="flowkit.log", durable=False)
        assert await house.broker.publish([sent]) == [None]

    async with house.coordinator():
        for message in ("old 0", "old 1"):
            await log(message)
        await house.until(lambda queries: len(queries.logs(run_id="r1")) == 2, "two lines")
        await house.store.transact(lambda transaction: transaction.archive([], None))
        await house.broker.delete(house.topology.logs.name)
        await house.broker.declare(house.topology.standing)
        await log("new 0")
        found = await house.until(
            lambda queries: [one for one in queries.logs(run_id="r1") if one.message == "new 0"], "the new line"
        )
        assert len(found) == 1


async def test_the_end_of_a_run_is_announced_although_who_committed_it_died(house, monkeypatch):
    class Killed(Exception):
        pass

    async def crash(self, committed):
        raise Killed

    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)

    async def until_killed():
        async with house.coordinator():
            await house.start("a", "r1")
            (task,) = await house.tasks("a")
            monkeypatch.setattr(Outbox, "deliver", crash)
            await house.answer(task, [], {"ok": True})
            await house.run_ended("r1")

    with pytest.raises(Killed):
        await until_killed()
    monkeypatch.undo()
    async with house.coordinator(), asyncio.timeout(5):
        (delivery,) = await ear.receive(1)
    assert wire.decode(wire.RunEnded, delivery.body).outputs == {"ok": True}
    await ear.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"\xff", "not-json"), (b'{"task_id": 1}', "invalid"), (None, "wrong-node")],
)
async def test_what_a_worker_gave_up_is_kept_with_the_reason(house, body, reason):
    async with house.coordinator():
        await house.start("a", "r1")
        [task] = await house.tasks("a")
        await house.broker.declare([house.topology.tasks("b")])
        message = Outgoing(house.topology.name("tasks"), "b", task.encode() if body is None else body, "flowkit.task")
        assert await house.broker.publish([message]) == [None]
        consumer = house.broker.consume(house.topology.tasks("b"), prefetch=1)
        await consumer.reject(await consumer.receive(1))
        (letter,) = await house.until(lambda queries: queries.dead(limit=10), "a dead letter")
        assert (letter.reason, letter.queue) == (reason, "flowkit.tasks.b")
        assert letter.body == message.body
        await house.answer(task)
        assert (await house.run_ended("r1")).status == "succeeded", "the run is not touched by it"


async def test_a_damaged_store_ends_the_coordinator_and_nothing_is_dead_lettered(house, monkeypatch):
    broken = StoreUnreachable("sqlite:///flowkit.db", "the file is damaged", final=True)

    async def fail(function):
        raise broken

    coordinator = Coordinator(house.broker, house.store, house.topology, name="c1", pace=FAST)
    running = asyncio.create_task(coordinator.run())
    await coordinator.wait_ready()
    monkeypatch.setattr(house.store, "transact", fail)
    await house.start("a", "r1")
    with pytest.raises(StoreUnreachable, match=r"damaged\. Bring back a copy from your backup"):
        await running
    starts, dead = [await house.broker.inspect(queue.name) for queue in (house.topology.starts, house.topology.dead)]
    assert (starts.ready, dead.ready) == (1, 0)

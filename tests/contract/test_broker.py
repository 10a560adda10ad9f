"""What every broker promises (flowkit/broker/protocol.py), run over the in-memory one and over RabbitMQ."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from pamqp import commands

from flowkit.broker import Broker, Consumer, Delivery, Outgoing, open_broker
from flowkit.broker.memory import MemoryBroker
from flowkit.broker.protocol import MAX_MESSAGE_BYTES
from flowkit.broker.rabbit import RabbitBroker
from flowkit.broker.rabbit.consumer import RabbitConsumer
from flowkit.errors import BrokerUnreachable, NotFound, NotSent, QueueFull, Refused, TooLarge, Unroutable, UsageError
from flowkit.wire.topology import Binding, Exchange, Queue, Topology


@dataclass
class Site:
    """A broker's address, and how to hurt its connections."""

    open: Callable[[], Broker]
    topology: Topology

    def message(
        self, body: bytes = b"{}", *, to: str = "results", key: str = "add.succeeded", **more: object
    ) -> Outgoing:
        return Outgoing(self.topology.name(to), key, body, "flowkit.test", **more)


@pytest.fixture(params=["memory", "rabbitmq"])
def site(request: pytest.FixtureRequest, namespace: str) -> Site:
    url = f"memory:{namespace}" if request.param == "memory" else request.getfixturevalue("rabbitmq_url")
    return Site(lambda: open_broker(url), Topology(namespace))


@pytest.fixture
async def broker(site: Site) -> AsyncIterator[Broker]:
    broker = site.open()
    await broker.connect(timeout=10)
    assert await broker.declare(site.topology.standing) == []
    yield broker
    if isinstance(broker, RabbitBroker):
        for part in site.topology.standing:
            if isinstance(part, Queue):
                await broker.delete(part.name)
    await broker.close()


@pytest.fixture
def topology(site: Site) -> Topology:
    return site.topology


async def cut(broker: Broker) -> None:
    """Cut all connections of a broker object, from outside of its code."""
    if isinstance(broker, MemoryBroker):
        broker.disconnect()
        return
    assert isinstance(broker, RabbitBroker)
    for link in [broker._durable, broker._transient, broker._shared, *(one._link for one in broker._consumers)]:
        if link._connection is not None:
            link._connection._connection.abort()
    if broker._desk._connection is not None:
        broker._desk._connection.connection.underlay._writer_task.cancel()


async def gather(consumer: Consumer, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(got) < count:
            got += await consumer.receive(count - len(got))
    return got


async def hold(consumer: Consumer, count: int) -> list[Delivery]:
    """Receive so many, and acknowledge none."""
    held: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(held) < count:
            held += await consumer.receive(count - len(held))
    return held


async def nothing_arrives(consumer: Consumer, within: float = 0.2) -> bool:
    try:
        async with asyncio.timeout(within):
            await consumer.receive(1)
    except TimeoutError:
        return True
    return False


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """For what a broker does on its own and tells nobody: ask it again until it is so."""
    async with asyncio.timeout(15):
        while not await condition():
            await asyncio.sleep(0.02)


async def _true(value: bool) -> bool:
    return value


# Publishing


async def test_what_was_published_arrives_with_all_its_properties(
    site: Site, broker: Broker, topology: Topology
) -> None:
    message = site.message(b'{"a":1}', correlation_id="run-1", app_id="add", headers={"traceparent": "00-x", "n": 7})
    assert await broker.publish([message]) == [None]
    consumer = broker.consume(topology.results, prefetch=10)
    [delivery] = await consumer.receive(10)
    assert delivery.body == b'{"a":1}'
    assert (delivery.queue, delivery.exchange, delivery.key) == (
        topology.results.name, topology.name("results"), "add.succeeded",
    )  # fmt: skip
    assert (delivery.type, delivery.correlation_id, delivery.app_id) == ("flowkit.test", "run-1", "add")
    assert delivery.headers == {"traceparent": "00-x", "n": 7}
    assert (delivery.redelivered, delivery.delivery_count, delivery.offset) == (False, 0, None)


async def test_each_message_has_its_own_id_unless_the_caller_gave_one(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.publish([site.message(), site.message(), site.message(message_id="mine")])
    ids = [one.message_id for one in await gather(broker.consume(topology.results, prefetch=10), 3)]
    assert ids[2] == "mine"
    assert len(set(ids)) == 3
    assert all(ids)


async def test_a_thousand_are_confirmed_in_one_call_and_arrive_in_order(
    site: Site, broker: Broker, topology: Topology
) -> None:
    assert await broker.publish([site.message(b"%d" % n) for n in range(1000)]) == [None] * 1000
    got = await gather(broker.consume(topology.results, prefetch=1000), 1000)
    assert [one.body for one in got] == [b"%d" % n for n in range(1000)]


async def test_an_empty_batch_is_no_error(broker: Broker) -> None:
    assert await broker.publish([]) == []


async def test_a_message_for_no_queue_is_unroutable_and_the_others_arrive(
    site: Site, broker: Broker, topology: Topology
) -> None:
    messages = [site.message(b"%d" % n) for n in range(100)]
    messages[40] = site.message(b"lost", to="tasks", key="nobody")
    verdicts = await broker.publish(messages)
    assert isinstance(verdicts[40], Unroutable)
    assert (verdicts[40].exchange, verdicts[40].key) == (topology.name("tasks"), "nobody")
    assert [verdict for verdict in verdicts if verdict is not None] == [verdicts[40]]
    assert len(await gather(broker.consume(topology.results, prefetch=200), 99)) == 99


async def test_nobody_needs_to_listen_where_the_message_is_not_mandatory(site: Site, broker: Broker) -> None:
    assert await broker.publish([site.message(to="runs", key="succeeded.add", mandatory=False)]) == [None]


async def test_a_message_over_the_limit_is_too_large_and_the_others_arrive(
    site: Site, broker: Broker, topology: Topology
) -> None:
    verdicts = await broker.publish(
        [site.message(b"a"), site.message(bytes(MAX_MESSAGE_BYTES + 1)), site.message(b"b")]
    )
    assert isinstance(verdicts[1], TooLarge)
    assert verdicts[1].size == MAX_MESSAGE_BYTES + 1
    assert (verdicts[0], verdicts[2]) == (None, None)
    assert {one.body for one in await gather(broker.consume(topology.results, prefetch=5), 2)} == {b"a", b"b"}


async def test_a_transient_message_arrives_where_somebody_listens_and_is_no_error_elsewhere(
    site: Site, broker: Broker, topology: Topology
) -> None:
    ear = broker.consume(topology.control("w1"), prefetch=10)
    await ear.wait_connected()
    assert await broker.publish([site.message(b"hear", to="control", key="", durable=False)]) == [None]
    assert (await ear.receive(1))[0].body == b"hear"
    await ear.close()
    assert await broker.publish([site.message(to="control", key="", durable=False)]) == [None]


async def test_durable_and_transient_may_stand_in_one_batch(site: Site, broker: Broker, topology: Topology) -> None:
    batch = [site.message(b"a"), site.message(b"b", to="workers", key="", durable=False), site.message(b"c")]
    assert await broker.publish(batch) == [None] * 3
    assert len(await gather(broker.consume(topology.results, prefetch=5), 2)) == 2
    assert len(await gather(broker.consume(topology.workers, prefetch=5), 1)) == 1


async def test_without_its_exchange_a_message_is_refused_and_the_others_arrive(
    site: Site, broker: Broker, topology: Topology
) -> None:
    late = Exchange(topology.name("late"), "fanout")
    [verdict] = await broker.publish([site.message(to="late", durable=False)])
    assert isinstance(verdict, NotSent)
    for _ in range(2):  # the second time it is known to be missing
        missing, announced, other = await broker.publish(
            [site.message(b"w", to="late"), site.message(to="late", mandatory=False), site.message(b"other")]
        )
        assert isinstance(missing, Unroutable)
        assert (missing.exchange, missing.key) == (late.name, "add.succeeded")
        assert isinstance(announced, Unroutable)
        assert other is None
    await broker.declare([late, Queue(topology.name("lateq"), bindings=(Binding(late.name),))])
    for _ in range(2):
        assert await broker.publish([site.message(b"w", to="late"), site.message(b"other")]) == [None, None]
    assert len(await gather(broker.consume(topology.results, prefetch=5), 4)) == 4
    assert len(await gather(broker.consume(Queue(topology.name("lateq")), prefetch=5), 2)) == 2
    await broker.delete(topology.name("lateq"))


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_full_queue_refuses_and_the_others_of_the_batch_arrive(
    site: Site, broker: Broker, topology: Topology, kind: str
) -> None:
    limits = (("x-queue-type", kind), ("x-max-length", 2), ("x-overflow", "reject-publish"))
    short = Queue(topology.name("short"), limits, (Binding(topology.name("tasks"), "short"),))
    await broker.declare([short])

    async def is_full() -> bool:  # a quorum queue takes some more before it knows
        return isinstance((await broker.publish([site.message(to="tasks", key="short")]))[0], QueueFull)

    await eventually(is_full)
    full, other = await broker.publish([site.message(to="tasks", key="short"), site.message(b"other")])
    assert isinstance(full, QueueFull)
    assert (full.exchange, full.key) == (topology.name("tasks"), "short")
    assert other is None
    [passing] = await broker.publish([site.message(to="tasks", key="short", durable=False)])
    assert isinstance(passing, QueueFull)
    consumer = broker.consume(short, prefetch=100)
    await consumer.ack(await gather(consumer, 2))  # there is room again
    await eventually(lambda: _sent(broker, site.message(to="tasks", key="short")))
    await broker.delete(short.name)


async def test_a_full_queue_refuses_and_the_other_queues_of_the_exchange_have_the_message(
    site: Site, broker: Broker, topology: Topology
) -> None:
    limits = (("x-max-length", 1), ("x-overflow", "reject-publish"))
    full = Queue(topology.name("full"), limits, (Binding(topology.name("logs")),))
    wide = broker.consume(topology.logs, prefetch=9, offset="next")
    await wide.wait_connected()
    await broker.declare([full])
    assert await broker.publish([site.message(b"1", to="logs", key="")]) == [None]
    [verdict] = await broker.publish([site.message(b"2", to="logs", key="")])
    assert isinstance(verdict, QueueFull)
    assert [one.body for one in await gather(wide, 2)] == [b"1", b"2"]
    await broker.delete(full.name)


async def test_after_close_nothing_is_sent_and_it_is_said(site: Site, broker: Broker) -> None:
    other = site.open()
    await other.connect(timeout=10)
    await other.close()
    assert [type(verdict) for verdict in await other.publish([site.message()])] == [NotSent]
    assert not other.connected


async def test_a_broker_without_an_alarm_accepts_messages(broker: Broker) -> None:
    assert (broker.blocked_reason, await broker.find_alarm(5)) == (None, None)


# Routing


async def test_a_fanout_reaches_every_queue_and_a_topic_those_that_fit(
    site: Site, broker: Broker, topology: Topology
) -> None:
    wide, narrow, word = (
        broker.consume(topology.runs("wide"), prefetch=9),
        broker.consume(topology.runs("narrow", "failed.#"), prefetch=9),
        broker.consume(topology.runs("word", "*.add"), prefetch=9),
    )
    for consumer in (wide, narrow, word):
        await consumer.wait_connected()
    keys = ["succeeded.add", "failed.add", "failed", "failed.resize"]
    await broker.publish([site.message(key.encode(), to="runs", key=key) for key in keys])
    assert [one.key for one in await gather(wide, 4)] == keys
    assert [one.key for one in await gather(narrow, 3)] == keys[1:]
    assert [one.key for one in await gather(word, 2)] == keys[:2]
    ears = [broker.consume(topology.control(name), prefetch=1) for name in ("a", "b")]
    for ear in ears:
        await ear.wait_connected()
    await broker.publish([site.message(b"all", to="control", key="", durable=False)])
    assert [(await ear.receive(1))[0].body for ear in ears] == [b"all", b"all"]


async def test_a_direct_exchange_reaches_the_queue_of_that_key(site: Site, broker: Broker, topology: Topology) -> None:
    await broker.declare([topology.tasks("add"), topology.tasks("resize")])
    await broker.publish([site.message(b"1", to="tasks", key="add"), site.message(b"2", to="tasks", key="resize")])
    [one] = await gather(broker.consume(topology.tasks("resize"), prefetch=5), 1)
    assert one.body == b"2"
    for node in ("add", "resize"):
        await broker.delete(topology.tasks(node).name)


async def test_the_default_exchange_reaches_a_queue_by_its_name(broker: Broker, topology: Topology) -> None:
    await broker.publish([Outgoing("", topology.results.name, b"x", "flowkit.test")])
    assert (await gather(broker.consume(topology.results, prefetch=1), 1))[0].body == b"x"


# Receiving


async def test_receive_gives_what_is_there_and_does_not_wait_to_fill(
    site: Site, broker: Broker, topology: Topology
) -> None:
    consumer = broker.consume(topology.results, prefetch=100)
    await broker.publish([site.message(b"1")])
    assert len(await consumer.receive(50)) == 1
    await broker.publish([site.message() for _ in range(30)])
    assert len(await gather(consumer, 20)) == 20
    assert 1 <= len(await consumer.receive(3)) <= 3


async def test_no_more_than_the_prefetch_is_out(site: Site, broker: Broker, topology: Topology) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(5)])
    consumer = broker.consume(topology.results, prefetch=2)
    held = await gather(consumer, 2)
    assert await nothing_arrives(consumer)
    await consumer.ack(held[:1])
    held = held[1:] + await consumer.receive(5)
    assert [one.body for one in held] == [b"1", b"2"]
    await consumer.ack(held[::-1])
    assert [one.body for one in await gather(consumer, 2)] == [b"3", b"4"]


async def test_acknowledged_in_any_order_nothing_else_is(site: Site, broker: Broker, topology: Topology) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(10)])
    consumer = broker.consume(topology.results, prefetch=10)
    got = await gather(consumer, 10)
    await consumer.ack([got[n] for n in (7, 0, 1, 3)])
    await consumer.ack([got[n] for n in (2, 1)])  # twice is no error
    await consumer.close()
    again = await gather(broker.consume(topology.results, prefetch=10), 5)
    assert [one.body for one in again] == [b"4", b"5", b"6", b"8", b"9"]


async def test_requeued_comes_again_first_marked_and_counted(site: Site, broker: Broker, topology: Topology) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(3)])
    consumer = broker.consume(topology.results, prefetch=1)
    for count in range(3):
        [delivery] = await consumer.receive(1)
        assert (delivery.body, delivery.redelivered, delivery.delivery_count) == (b"0", count > 0, count)
        await consumer.requeue([delivery])
    await consumer.ack(await consumer.receive(1))
    assert (await consumer.receive(1))[0].body == b"1"


async def test_what_is_rejected_goes_to_the_dead_letters_and_the_others_flow(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.publish([site.message(b"bad"), site.message(b"good")])
    consumer = broker.consume(topology.results, prefetch=2)
    bad, good = await gather(consumer, 2)
    await consumer.reject([bad])
    await consumer.ack([good])
    [dead] = await gather(broker.consume(topology.dead, prefetch=1, own_connection=True), 1)
    assert (dead.body, dead.key) == (b"bad", topology.results.name)
    [death] = dead.headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("rejected", topology.results.name, 1)


async def test_close_gives_back_what_was_not_acknowledged(site: Site, broker: Broker, topology: Topology) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(4)])
    first = broker.consume(topology.results, prefetch=4)
    [done, *_] = await gather(first, 2)  # two given out, two waiting inside
    await first.ack([done])
    await first.close()
    assert await first.receive(1) == []
    again = await gather(broker.consume(topology.results, prefetch=4), 3)
    assert [(one.body, one.redelivered) for one in again] == [(b"1", True), (b"2", True), (b"3", True)]


async def test_after_stop_what_had_arrived_can_be_drained_and_acknowledged(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(3)])
    consumer = broker.consume(topology.results, prefetch=2)
    held = await gather(consumer, 1)
    await eventually(lambda: _ready(broker, topology.results, 1))
    await consumer.stop()
    assert not consumer.connected
    held += await consumer.receive(5)
    assert [one.body for one in held] == [b"0", b"1"]
    assert await consumer.receive(5) == []
    assert await consumer.receive(5) == []
    await consumer.ack(held)
    await consumer.close()
    assert [one.body for one in await gather(broker.consume(topology.results, prefetch=5), 1)] == [b"2"]


async def test_stop_wakes_one_who_waits(broker: Broker, topology: Topology) -> None:
    consumer = broker.consume(topology.results, prefetch=2)
    await consumer.wait_connected()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(consumer.receive(1))
        await asyncio.sleep(0)
        await consumer.stop()
    assert waiting.result() == []


async def test_two_consumers_share_a_queue(site: Site, broker: Broker, topology: Topology) -> None:
    consumers = [
        broker.consume(topology.results, prefetch=2),
        broker.consume(topology.results, prefetch=2, own_connection=True),
    ]
    for consumer in consumers:
        await consumer.wait_connected()
    await broker.publish([site.message(b"%d" % n) for n in range(4)])
    got = [await gather(consumer, 2) for consumer in consumers]
    assert sorted(one.body for some in got for one in some) == [b"0", b"1", b"2", b"3"]


async def _ready(broker: Broker, queue: Queue, count: int) -> bool:
    state = await broker.inspect(queue.name)
    return state is not None and state.ready == count


# Queues


async def test_a_missing_queue_is_consumed_as_soon_as_it_is_declared(
    site: Site, broker: Broker, topology: Topology
) -> None:
    consumer = broker.consume(topology.tasks("late"), prefetch=1)
    assert await nothing_arrives(consumer)
    assert not consumer.connected
    await broker.declare([topology.tasks("late")])
    await broker.publish([site.message(b"x", to="tasks", key="late")])
    assert (await gather(consumer, 1))[0].body == b"x"
    await broker.delete(topology.tasks("late").name)


async def test_a_deleted_queue_is_consumed_again_when_it_is_back(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.declare([topology.tasks("add")])
    consumer = broker.consume(topology.tasks("add"), prefetch=1)
    await consumer.wait_connected()
    await broker.delete(topology.tasks("add").name)
    await broker.delete(topology.tasks("add").name)  # a missing one is no error
    assert await broker.inspect(topology.tasks("add").name) is None
    await eventually(lambda: _true(not consumer.connected))
    await broker.declare([topology.tasks("add")])
    await broker.publish([site.message(b"x", to="tasks", key="add")])
    assert (await gather(consumer, 1))[0].body == b"x"
    await broker.delete(topology.tasks("add").name)


async def test_a_deleted_stream_is_read_from_its_beginning_when_it_is_back(
    site: Site, broker: Broker, topology: Topology
) -> None:
    consumer = broker.consume(topology.logs, prefetch=10, offset="first")
    await broker.publish([site.message(b"%d" % n, to="logs", key="") for n in range(3)])
    await consumer.ack(await gather(consumer, 3))
    await broker.delete(topology.logs.name)
    await eventually(lambda: _true(not consumer.connected))
    await broker.declare([topology.logs])
    await broker.publish([site.message(b"new", to="logs", key="")])
    [new] = await gather(consumer, 1)
    assert (new.offset, new.body) == (0, b"new")


async def test_what_is_missing_is_found_without_changing_anything(broker: Broker, topology: Topology) -> None:
    assert await broker.missing(topology.standing) == []
    absent = [topology.marker(), topology.tasks("nobody")]
    assert await broker.missing([topology.results, *absent, topology.exchanges[0]]) == absent
    await broker.delete(topology.results.name)
    assert await broker.missing([topology.results, *absent]) == [topology.results, *absent]


async def test_of_two_declarations_with_different_owners_at_the_same_moment_one_is_refused(
    site: Site, broker: Broker, topology: Topology
) -> None:
    other = site.open()
    first, second = topology.owner("a" * 32), topology.owner("b" * 32)
    try:
        verdicts = await asyncio.gather(broker.declare([first]), other.declare([second]), return_exceptions=True)
        assert {type(verdict) for verdict in verdicts} == {list, Refused}
        winner, loser = (first, second) if verdicts[0] == [] else (second, first)
        assert await broker.declare([winner]) == []
        with pytest.raises(Refused, match="x-max-length-bytes"):
            await broker.declare([loser])
        await broker.publish([Outgoing("", winner.name, b"{}", "flowkit.owner")])
        await eventually(lambda: _ready(broker, winner, 1))
        await broker.delete(winner.name)
        assert await broker.declare([loser]) == []
    finally:
        await broker.delete(first.name)
        await other.close()


async def test_an_exclusive_queue_that_is_deleted_is_declared_again_and_that_counts_as_a_reconnect(
    site: Site, broker: Broker, topology: Topology
) -> None:
    ear = broker.consume(topology.runs("w1"), prefetch=1)
    await ear.wait_connected()
    await _delete_exclusive(broker, topology.runs("w1").name)
    await eventually(lambda: _true(ear.reconnects == 1 and ear.connected))
    await broker.publish([site.message(b"x", to="runs", key="a.b", mandatory=False)])
    assert (await gather(ear, 1))[0].body == b"x"


async def test_an_exclusive_queue_is_bound_again_when_its_exchange_is_a_new_one(
    site: Site, broker: Broker, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RabbitConsumer, "rebind", 0.3)
    ear = broker.consume(topology.runs("w1"), prefetch=1)
    await ear.wait_connected()
    await _delete_exchange(broker, topology.name("runs"))
    await broker.declare(topology.exchanges)

    async def arrives() -> bool:
        await broker.publish([site.message(b"x", to="runs", key="a.b", mandatory=False)])
        return not await nothing_arrives(ear, 0.1)

    await eventually(arrives)


async def _delete_exclusive(broker: Broker, queue: str) -> None:
    """As an operator can: from the connection that it belongs to it works too."""
    if isinstance(broker, MemoryBroker):
        await broker.delete(queue)
        return
    assert isinstance(broker, RabbitBroker)
    channel = await (await broker._shared.connection()).channel()
    await channel.call(commands.Queue.Delete(queue=queue))


async def _delete_exchange(broker: Broker, name: str) -> None:
    if isinstance(broker, MemoryBroker):
        broker.delete_exchange(name)
        return
    assert isinstance(broker, RabbitBroker)
    channel = await (await broker._shared.connection()).channel()
    await channel.call(commands.Exchange.Delete(exchange=name))


async def test_what_had_arrived_when_its_queue_was_deleted_is_received(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(3)])
    consumer = broker.consume(topology.results, prefetch=3)
    got = await gather(consumer, 1)
    await eventually(lambda: _ready(broker, topology.results, 0))
    await broker.delete(topology.results.name)
    await eventually(lambda: _true(not consumer.connected))
    got += await gather(consumer, 2)
    await consumer.ack(got)  # means nothing any more
    assert [one.body for one in got] == [b"0", b"1", b"2"]


async def test_an_exclusive_queue_ends_with_its_consumer(broker: Broker, topology: Topology) -> None:
    ear = broker.consume(topology.control("w1"), prefetch=1)
    await ear.wait_connected()
    assert await broker.exists(topology.exchanges[0])
    await ear.close()
    assert await broker.inspect(topology.control("w1").name) is None


async def test_an_exclusive_queue_is_taken_over_when_its_owner_is_gone(
    site: Site, broker: Broker, topology: Topology
) -> None:
    other = site.open()
    first = other.consume(topology.control("w1"), prefetch=1)
    await first.wait_connected()
    second = broker.consume(topology.control("w1"), prefetch=1)
    async with asyncio.timeout(10):
        await second.wait_locked()
    assert (first.locked, second.locked, second.connected) == (False, True, False)
    await other.close()
    async with asyncio.timeout(10):
        await second.wait_connected()
    assert not second.locked


async def test_declare_refuses_exclusive_queues_and_names_a_missing_exchange(
    broker: Broker, topology: Topology
) -> None:
    with pytest.raises(UsageError, match="exclusive"):
        await broker.declare([topology.control("w1")])
    with pytest.raises(NotFound, match="nowhere"):
        await broker.declare([Queue(topology.name("q"), bindings=(Binding("nowhere"),))])
    await broker.delete(topology.name("q"))


async def test_declaring_again_is_no_error_and_other_arguments_are_refused_by_name(
    broker: Broker, topology: Topology
) -> None:
    assert await broker.declare(topology.standing) == []
    arguments = tuple((name, 99 if name == "x-delivery-limit" else value) for name, value in topology.results.arguments)
    with pytest.raises(Refused, match=r"x-delivery-limit = '?10'?, and '?99'? was asked for"):
        await broker.declare([Queue(topology.results.name, arguments)])
    with pytest.raises(Refused, match=r"x-dead-letter-exchange = .* and None was"):
        await broker.declare([Queue(topology.results.name)])
    with pytest.raises(Refused, match=r"exchange .* with type = 'topic', and 'fanout' was asked for"):
        await broker.declare([Exchange(topology.name("results"), "fanout")])


async def test_inspect_and_exists_look_without_changing(site: Site, broker: Broker, topology: Topology) -> None:
    assert await broker.inspect(topology.name("nothing")) is None
    assert not await broker.exists(topology.marker())
    await broker.declare([topology.marker()])
    assert await broker.exists(topology.marker())
    await broker.publish([site.message() for _ in range(3)])
    await eventually(lambda: _ready(broker, topology.results, 3))
    consumer = broker.consume(topology.results, prefetch=1)
    await consumer.wait_connected()
    await eventually(lambda: _ready(broker, topology.results, 2))
    state = await broker.inspect(topology.results.name)
    assert state is not None
    assert state.consumers == 1


async def test_a_bounded_queue_forgets_the_oldest(site: Site, broker: Broker, topology: Topology) -> None:
    short = Queue(topology.name("short"), (("x-max-length", 2),), (Binding(topology.name("logs")),))
    await broker.declare([short])
    await broker.publish([site.message(b"%d" % n, to="logs", key="") for n in range(5)])
    assert [one.body for one in await gather(broker.consume(short, prefetch=5), 2)] == [b"3", b"4"]
    await broker.delete(short.name)


async def test_over_the_delivery_limit_a_message_is_dead_lettered_and_says_why(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.publish([site.message(b"bad"), site.message(b"good")])
    consumer = broker.consume(topology.results, prefetch=1)
    for _ in range(11):
        [delivery] = await consumer.receive(1)
        assert delivery.body == b"bad"
        await consumer.requeue([delivery])
    assert (await consumer.receive(1))[0].body == b"good"
    [dead] = await gather(broker.consume(topology.dead, prefetch=1, own_connection=True), 1)
    assert (dead.body, dead.key) == (b"bad", topology.results.name)
    [death] = dead.headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", topology.results.name, 1)
    assert (death["exchange"], death["routing-keys"]) == (topology.name("results"), ["add.succeeded"])
    assert dead.headers["x-first-death-queue"] == topology.results.name


# Streams


async def test_a_stream_is_read_by_offset_and_never_emptied(site: Site, broker: Broker, topology: Topology) -> None:
    for n in range(5):  # one by one: RabbitMQ's "last" is the last chunk
        await broker.publish([site.message(b"%d" % n, to="logs", key="")])
    first = broker.consume(topology.logs, prefetch=100, offset="first")
    got = await gather(first, 5)
    assert [(one.offset, one.body) for one in got] == [(n, b"%d" % n) for n in range(5)]
    await first.ack(got)
    again, at, last, fresh = (
        broker.consume(topology.logs, prefetch=100, offset=offset) for offset in ("first", 2, "last", "next")
    )
    for consumer in (again, at, last, fresh):
        await consumer.wait_connected()
    assert len(await gather(again, 5)) == 5
    assert [one.offset for one in await gather(at, 3)] == [2, 3, 4]
    assert (await gather(last, 1))[0].offset == 4
    await broker.publish([site.message(b"new", to="logs", key="")])
    assert (await gather(fresh, 1))[0].body == b"new"
    assert (await gather(first, 1))[0].body == b"new"


async def test_a_stream_gives_more_when_it_was_acknowledged(site: Site, broker: Broker, topology: Topology) -> None:
    await broker.publish([site.message(b"%d" % n, to="logs", key="") for n in range(50)])
    consumer = broker.consume(topology.logs, prefetch=4, offset="first")
    got: list[Delivery] = []
    while len(got) < 50:
        some = await gather(consumer, 1)
        await consumer.ack(some)
        got += some
    assert [one.offset for one in got] == list(range(50))


async def test_after_a_lost_connection_a_stream_goes_on_behind_the_last(
    site: Site, broker: Broker, topology: Topology
) -> None:
    consumer = broker.consume(topology.logs, prefetch=10, offset="first")
    await broker.publish([site.message(b"%d" % n, to="logs", key="") for n in range(3)])
    got = await gather(consumer, 3)
    await cut(broker)
    await broker.publish([site.message(b"3", to="logs", key="")])
    got += await gather(consumer, 1)
    assert [one.offset for one in got] == [0, 1, 2, 3]
    assert consumer.reconnects == 1


# Lost connections


async def test_after_a_lost_connection_what_was_not_acknowledged_comes_again(
    site: Site, broker: Broker, topology: Topology
) -> None:
    await broker.publish([site.message(b"%d" % n) for n in range(3)])
    consumer = broker.consume(topology.results, prefetch=3)
    before = await gather(consumer, 3)
    generation = broker.generation
    await cut(broker)
    after = await gather(consumer, 1)
    assert (after[0].body, after[0].redelivered) == (b"0", True)
    await consumer.ack(before)  # of a connection that has died: dropped
    assert await nothing_arrives(consumer)  # begins again with a prefetch of 1 …
    await consumer.ack(after)
    assert sorted(one.body for one in await gather(consumer, 2)) == [b"1", b"2"]  # … which doubles
    assert consumer.reconnects == 1
    async with asyncio.timeout(10):
        await broker.wait_connected()
    assert broker.generation > generation
    assert await broker.publish([site.message()]) == [None]


async def test_an_exclusive_queue_is_declared_again_on_the_new_connection(
    site: Site, broker: Broker, topology: Topology
) -> None:
    ear = broker.consume(topology.control("w1"), prefetch=5)
    await ear.wait_connected()
    await cut(broker)
    await eventually(lambda: _true(ear.reconnects == 1 and ear.connected))
    await eventually(lambda: _sent(broker, site.message(b"again", to="control", key="", durable=False)))
    assert (await gather(ear, 1))[0].body == b"again"


async def _sent(broker: Broker, message: Outgoing) -> bool:
    return await broker.publish([message]) == [None]


async def test_a_batch_that_loses_its_connection_is_published_all_the_same(
    site: Site, broker: Broker, topology: Topology
) -> None:
    messages = [site.message(uuid.uuid4().bytes) for _ in range(500)]
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(broker.publish(messages))
        await asyncio.sleep(0)
        await cut(broker)
    assert sending.result() == [None] * 500
    consumer, bodies = broker.consume(topology.results, prefetch=2000), set[bytes]()
    async with asyncio.timeout(20):
        while len(bodies) < 500:  # at least once: some may be there twice
            bodies |= {one.body for one in await consumer.receive(1000)}
    assert bodies == {message.body for message in messages}


async def test_an_unknown_scheme_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="redis"):
        open_broker("redis://localhost")
    assert issubclass(BrokerUnreachable, Exception)


async def test_a_suspended_consumer_gives_back_what_it_holds_and_takes_nothing(broker, site, topology):
    await broker.publish([site.message(b"1"), site.message(b"2")])
    suspended = broker.consume(topology.results, prefetch=10)
    held = await hold(suspended, 2)
    await suspended.suspend()
    assert not suspended.connected
    other = broker.consume(topology.results, prefetch=10)
    back = await hold(other, 2)
    assert sorted(delivery.body for delivery in back) == [b"1", b"2"]
    await suspended.ack(held)  # they are not its own any more
    await other.requeue(back)
    await other.close()
    before = suspended.reconnects
    await suspended.resume()
    for body in (b"1", b"2"):  # where deliveries are counted, one at a time in the beginning
        (again,) = await suspended.receive(1)
        assert again.body == body
        await suspended.ack([again])
    assert suspended.reconnects == before + 1
    await suspended.close()


async def test_a_suspended_consumer_can_be_stopped(broker, site, topology):
    consumer = broker.consume(topology.results, prefetch=10)
    await consumer.wait_connected()
    await consumer.suspend()
    receiving = asyncio.create_task(consumer.receive(1))
    await consumer.stop()
    async with asyncio.timeout(5):
        assert await receiving == []
    await consumer.resume()
    assert not consumer.connected
    await consumer.close()


async def test_a_consumer_knows_what_has_arrived_and_when_a_session_ended(broker, site, topology):
    consumer = broker.consume(topology.results, prefetch=10)
    await consumer.wait_connected()
    session = consumer.session
    assert await consumer.wait_arrived() == 0
    await broker.publish([site.message(b"1"), site.message(b"2")])

    async def is_delivered() -> bool:
        return (await broker.inspect(topology.results.name)).ready == 0

    await eventually(is_delivered)
    newest = await consumer.wait_arrived()  # delivered, whether or not anybody has received it
    received = await hold(consumer, 2)
    assert [received[0].tag < newest, received[1].tag] == [True, newest]
    await consumer.ack(received[:1])
    assert (await consumer.wait_arrived(), consumer.session) == (newest, session)
    await consumer.suspend()
    assert await consumer.wait_arrived() is None
    await consumer.resume()
    (again,) = await consumer.receive(1)
    assert consumer.session > session
    assert again.tag > newest
    assert await consumer.wait_arrived() == again.tag
    await cut(broker)
    await eventually(lambda: _true(not consumer.connected or consumer.session > session + 1))
    (again,) = await consumer.receive(1)
    assert await consumer.wait_arrived() == again.tag
    await consumer.ack([again])
    await consumer.stop()
    assert await consumer.wait_arrived() is None
    await consumer.close()

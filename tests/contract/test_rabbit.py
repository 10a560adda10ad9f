"""What only a real RabbitMQ can do to its clients: restarts, silence, alarms, poison."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiormq
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq import spec

from flowkit import amqp
from flowkit.broker import Delivery, Outgoing
from flowkit.broker.rabbit import RabbitBroker, declare
from flowkit.broker.rabbit.consumer import RabbitConsumer
from flowkit.broker.rabbit.faults import LinkLost
from flowkit.errors import AccessRefused, BrokerUnreachable, NotSent, PublishError, Unroutable
from flowkit.wire.topology import Part, Queue, Topology
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ


@pytest.fixture
def topology(namespace: str) -> Topology:
    return Topology(namespace)


@pytest.fixture
async def broker(private_rabbitmq: RabbitMQ, topology: Topology) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(private_rabbitmq.url)
    await broker.connect(timeout=10)
    await broker.declare(topology.standing)
    yield broker
    await broker.close()


def result(topology: Topology, body: bytes = b"{}", **more: object) -> Outgoing:
    return Outgoing(topology.name("results"), "add.succeeded", body, "flowkit.test", **more)


async def until(condition: Callable[[], bool], within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


async def test_what_was_declared_over_a_connection_that_is_lost_is_declared_again(
    private_rabbitmq: RabbitMQ, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the next one may be a broker that has lost everything."""
    declare_one, lost = declare.declare, []

    async def wiped_meanwhile(channel: AbstractChannel, part: Part) -> None:
        if part == topology.exchanges[2] and not lost:
            lost.append(part)
            for exchange in topology.exchanges[:2]:
                await channel.exchange_delete(exchange.name)
            raise LinkLost
        await declare_one(channel, part)

    monkeypatch.setattr(declare, "declare", wiped_meanwhile)
    broker = RabbitBroker(private_rabbitmq.url)
    assert await broker.declare(topology.standing) == []
    assert [await broker.exists(exchange) for exchange in topology.exchanges[:3]] == [True] * 3
    assert lost
    await broker.close()


async def test_a_queue_of_a_broker_that_has_just_started_is_waited_for(
    private_rabbitmq: RabbitMQ, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are let in before all queues are there, and are told 404 for one that stands."""
    declare_one, told = declare.declare, []

    async def not_yet(channel: AbstractChannel, part: Part) -> None:
        if part == topology.logs and not told:
            told.append(part)
            raise ChannelNotFoundEntity(
                f"NOT_FOUND - home node 'rabbit@localhost' of durable queue '{part.name}' in vhost '/' is down"
            )
        await declare_one(channel, part)

    monkeypatch.setattr(declare, "declare", not_yet)
    broker = RabbitBroker(private_rabbitmq.url)
    assert await broker.declare(topology.standing) == []
    assert told
    assert await broker.inspect(topology.logs.name) is not None
    await broker.close()


# Restarts and silence


async def test_publishing_and_consuming_go_on_through_restarts(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker, topology: Topology
) -> None:
    consumer = broker.consume(topology.results, prefetch=50)
    seen, confirmed = set[bytes](), set[bytes]()
    stop, published = asyncio.Event(), asyncio.Event()

    async def publish() -> None:
        number = 0
        while not stop.is_set():
            batch = [result(topology, b"%d" % (number + n)) for n in range(20)]
            assert await broker.publish(batch) == [None] * 20
            confirmed.update(message.body for message in batch)
            number += 20

    async def consume() -> None:
        while not (published.is_set() and confirmed <= seen):
            got = await consumer.receive(100)
            seen.update(one.body for one in got)
            await consumer.ack(got)

    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        group.create_task(consume())
        for end in (private_rabbitmq.stop, private_rabbitmq.kill):
            before = len(confirmed)
            await until(lambda before=before: len(confirmed) > before + 100 and consumer.connected)
            await asyncio.to_thread(end)
            await until(lambda: not broker.connected and not consumer.connected)
            [verdict] = await broker.publish([Outgoing(topology.name("logs"), "", b"x", "t", durable=False)])
            assert isinstance(verdict, NotSent)  # and did not wait for the broker's return
            await asyncio.to_thread(private_rabbitmq.start)
        before = len(confirmed)
        await until(lambda: len(confirmed) > before + 100)
        stop.set()
        await publishing
        published.set()
        await broker.publish([result(topology, b"last")])  # wakes the consumer
    assert confirmed <= seen
    assert consumer.reconnects == 2


async def test_a_connection_that_went_silent_is_noticed_and_made_again(
    private_rabbitmq: RabbitMQ, topology: Topology, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowkit.broker.rabbit.link.WATCH", 0.3)
    monkeypatch.setattr("flowkit.broker.rabbit.session.CLOSE", 0.3)
    async with Proxy(private_rabbitmq.port) as proxy:
        broker = RabbitBroker(f"amqp://guest:guest@127.0.0.1:{proxy.port}/")
        await broker.connect(timeout=10)
        await broker.declare(topology.standing)
        consumer = broker.consume(topology.results, prefetch=5)
        await consumer.wait_connected()
        proxy.swallow()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(broker.publish([result(topology, b"through")]))
            await until(lambda: not broker.connected and not consumer.connected)
            proxy.reset()
            proxy.flow()
        assert sending.result() == [None]
        async with asyncio.timeout(20):
            assert (await consumer.receive(1))[0].body == b"through"
        assert "link_lost" in {getattr(record, "action", "") for record in caplog.records}
        await broker.close()


async def test_a_consumer_left_deaf_by_a_queue_that_was_swapped_hears_again(
    broker: RabbitBroker, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RabbitConsumer, "quiet", 0.3)
    consumer = broker.consume(topology.results, prefetch=5)
    await consumer.wait_connected()
    await broker.delete(topology.results.name)
    await broker.declare([topology.results])  # so fast that the broker never tells the consumer
    await broker.publish([result(topology, b"heard")])
    async with asyncio.timeout(20):
        assert (await consumer.receive(1))[0].body == b"heard"


async def test_a_login_that_is_refused_later_ends_in_an_error_for_all_who_wait(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker, topology: Topology, caplog: pytest.LogCaptureFixture
) -> None:
    user = topology.namespace
    private_rabbitmq.ctl("add_user", user, "before")
    private_rabbitmq.ctl("set_permissions", user, ".*", ".*", ".*")
    ours = RabbitBroker(f"amqp://{user}:before@127.0.0.1:{private_rabbitmq.port}/", refusal_patience=0.5)
    await ours.connect(timeout=10)
    consumer = ours.consume(topology.results, prefetch=5)
    await consumer.wait_connected()
    async with asyncio.TaskGroup() as group:
        receiving = group.create_task(given_up(consumer.receive(1)))
        await asyncio.to_thread(private_rabbitmq.ctl, "change_password", user, "after")
        await asyncio.to_thread(private_rabbitmq.close_connections)
        publishing = group.create_task(given_up(ours.publish([result(topology)])))
    for error in (receiving.result(), publishing.result()):
        assert (error.why, error.final) == ("login refused", True)
    assert not ours.connected
    assert not consumer.connected
    assert "link_given_up" in {getattr(record, "action", "") for record in caplog.records}
    await ours.close()


async def given_up(waiting: Coroutine[Any, Any, object]) -> BrokerUnreachable:
    async with asyncio.timeout(20):
        with pytest.raises(BrokerUnreachable) as caught:
            await waiting
    return caught.value


async def test_a_missing_queue_that_appears_takes_no_connection_down(
    broker: RabbitBroker, topology: Topology, caplog: pytest.LogCaptureFixture
) -> None:
    queue = topology.tasks("late")  # a quorum queue: consumed while it is being made, it crashes RabbitMQ's channel
    other = broker.consume(topology.results, prefetch=1)
    await other.wait_connected()
    caplog.set_level(logging.DEBUG, "flowkit.broker.rabbit.consumer")
    for _ in range(5):
        caplog.clear()
        consumers = [broker.consume(queue, prefetch=1) for _ in range(4)]
        await until(lambda: sum("NOT_FOUND" in record.message for record in caplog.records) == 4)
        await broker.declare([queue])
        for one in consumers:
            async with asyncio.timeout(10):
                await one.wait_connected()
            await one.close()
        await broker.delete(queue.name)
    assert other.reconnects == 0


async def test_an_alarm_is_seen_and_publishing_waits_for_its_end(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker, topology: Topology
) -> None:
    consumer = broker.consume(topology.results, prefetch=1)
    await broker.publish([result(topology, b"before"), result(topology, b"too")])
    held = await consumer.receive(1)
    await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(broker.publish([result(topology, b"during")]))
            await until(lambda: not broker.connected)
            await consumer.ack(held)
            async with asyncio.timeout(10):
                held = await consumer.receive(1)  # acknowledging works all the while
            assert held[0].body == b"too"
            await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    finally:
        await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    assert sending.result() == [None]
    async with asyncio.timeout(10):
        await broker.wait_connected()


async def test_who_waits_for_the_end_of_an_alarm_waits_through_a_lost_connection(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker
) -> None:
    await broker.wait_connected()
    before = broker.generation
    await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(broker.publish([Outgoing("", "nowhere", b"{}", "t")]))  # blocks who publish
            await until(lambda: not broker.connected)
            waiting = group.create_task(broker.wait_connected())
            await asyncio.to_thread(private_rabbitmq.close_connections)
            await until(lambda: broker.generation > before)
            await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    finally:
        await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    assert waiting.done()
    assert isinstance(sending.result()[0], Unroutable)


class Slow:
    """A channel on which a consumer is made when ``go`` is set, and has its first message by then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        consume = amqp.Channel.consume

        async def slow(channel: amqp.Channel, queue: str, *arguments: Any, **more: Any) -> str:
            self.asked.set()
            await self.go.wait()
            return await consume(channel, queue, *arguments, **more)

        monkeypatch.setattr(amqp.Channel, "consume", slow)


async def test_a_consumer_that_is_stopped_while_it_is_made_keeps_nothing(
    broker: RabbitBroker, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.publish([result(topology, b"waits")])
    slow = Slow(monkeypatch)
    consumer = broker.consume(topology.results, prefetch=5)
    await slow.asked.wait()
    await consumer.stop()
    slow.go.set()
    async with asyncio.timeout(20):
        assert await consumer.receive(1) == []
        other = broker.consume(topology.results, prefetch=5)
        assert [one.body for one in await other.receive(1)] == [b"waits"]
        while (await broker.inspect(topology.results.name)).consumers > 1:
            await asyncio.sleep(0.05)


async def test_what_arrives_while_a_consumer_is_stopped_is_received(
    broker: RabbitBroker, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = broker.consume(topology.results, prefetch=5)
    await consumer.wait_connected()
    cancel, go = amqp.Channel.cancel, asyncio.Event()

    async def slow(channel: amqp.Channel, tag: str) -> None:
        await go.wait()
        await cancel(channel, tag)

    monkeypatch.setattr(amqp.Channel, "cancel", slow)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        stopping = group.create_task(consumer.stop())
        await asyncio.sleep(0)
        for body in (b"1", b"2"):
            await broker.publish([result(topology, body)])
            assert [one.body for one in await consumer.receive(5)] == [body]
        go.set()
        await stopping
        assert await consumer.receive(5) == []


# Permissions


async def test_what_permissions_forbid_is_returned_or_said(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker, topology: Topology
) -> None:
    user = topology.namespace
    private_rabbitmq.ctl("add_user", user, "secret")
    private_rabbitmq.ctl("set_permissions", user, "^$", rf"^{user}\.results$", "^$")
    limited = RabbitBroker(f"amqp://{user}:secret@127.0.0.1:{private_rabbitmq.port}/")
    await limited.connect(timeout=10)
    forbidden = await limited.declare([topology.results, topology.exchanges[0]])
    assert forbidden == [topology.results, topology.exchanges[0]]
    batch = [result(topology, b"1"), Outgoing(topology.name("tasks"), "add", b"2", "t"), result(topology, b"3")]
    verdicts = await limited.publish(batch)
    assert (verdicts[0], verdicts[2]) == (None, None)
    assert type(verdicts[1]) is PublishError
    assert "refused" in str(verdicts[1])
    with pytest.raises(AccessRefused, match="may not be consumed"):
        await limited.consume(topology.results, prefetch=1).receive(1)
    [delivery, *_] = await broker.consume(topology.results, prefetch=1).receive(1)
    assert delivery.user_id == user  # the broker vouches for it
    await limited.close()


# Messages that kill, or cannot be written


async def test_more_messages_than_wait_for_confirms_at_a_time(broker: RabbitBroker, topology: Topology) -> None:
    messages = [result(topology) for _ in range(2_000)]
    messages[1_507] = messages[0]._replace(exchange="", key="nowhere")
    verdicts = await broker.publish(messages)
    assert [at for at, verdict in enumerate(verdicts) if verdict is not None] == [1_507]
    assert isinstance(verdicts[1_507], Unroutable)


async def test_one_message_that_cannot_be_written_does_not_hold_up_the_others(
    broker: RabbitBroker, topology: Topology
) -> None:
    batch = [result(topology, b"%d" % n) for n in range(20)]
    batch[7] = result(topology, b"bad", headers={"n": object()})
    batch[9] = Outgoing(topology.name("results"), "k" * 300, b"bad", "t")
    verdicts = await broker.publish(batch)
    assert [at for at, verdict in enumerate(verdicts) if verdict is not None] == [7, 9]
    assert type(verdicts[7]) is type(verdicts[9]) is PublishError


async def poison(url: str, exchange: str, key: str) -> None:
    """Publish a message whose header no AMQP client in Python can decode: a field name that is not UTF-8."""
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.basic_publish(
        b"poison", exchange=exchange, routing_key=key,
        properties=spec.Basic.Properties(headers={"PLACEHOLDER": 1}, delivery_mode=2),
    )  # fmt: skip
    await connection.close()


@pytest.fixture
def bad_names(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the library write one header's name as bytes that are no UTF-8."""
    from pamqp import encode

    original = encode.short_string

    def short_string(value: str) -> bytes:
        return original(value).replace(b"PLACEHOLDER", b"PLACEHOLD\xff\xfe")

    monkeypatch.setattr(encode, "short_string", short_string)
    return lambda: None


async def test_a_message_that_others_could_not_decode_arrives_among_the_others(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker, topology: Topology, bad_names: object
) -> None:
    await broker.publish([result(topology, b"1")])
    await poison(private_rabbitmq.url, topology.name("results"), "add.succeeded")
    await broker.publish([result(topology, b"2")])
    consumer = broker.consume(topology.results, prefetch=3)
    got: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(got) < 3:
            got += await consumer.receive(3)
    assert [(one.body, one.type) for one in got] == [(b"1", "flowkit.test"), (b"poison", None), (b"2", "flowkit.test")]
    assert got[1].headers == {r"PLACEHOLD\xff\xfe": 1}
    assert consumer.reconnects == 0


async def test_a_stream_has_the_place_of_a_message_that_others_could_not_decode(
    private_rabbitmq: RabbitMQ, broker: RabbitBroker, topology: Topology, bad_names: object
) -> None:
    """Nor may a header that looks like the broker's say where it stands."""

    def log(body: bytes, **more: object) -> Outgoing:
        return Outgoing(topology.name("logs"), "", body, "t", **more)

    await broker.publish([log(b"1")])
    await poison(private_rabbitmq.url, topology.name("logs"), "")
    forged = "\x0fx-stream-offsetl" + "\0" * 8
    await broker.publish([log(b"3", headers={"a": forged, "x-stream-offset": 7})])
    consumer = broker.consume(topology.logs, prefetch=100, offset="first")
    got: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(got) < 3:
            got += await consumer.receive(10)
    assert [(one.offset, one.body) for one in got] == [(0, b"1"), (1, b"poison"), (2, b"3")]
    assert got[2].headers["a"] == forged
    assert isinstance(topology.logs, Queue)

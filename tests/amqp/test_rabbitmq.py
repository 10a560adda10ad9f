"""The data path and a real RabbitMQ."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest
from pamqp import commands

from flowkit.amqp import Address, ChannelClosed, ConnectionLost, LoginRefused, Nacked, NotAllowed, Returned, connect
from tests.amqp.asking import Collected, bodies, count, declare, message
from tests.services.proxy import Proxy


async def test_what_is_published_is_confirmed_and_arrives_in_order(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    sent = [message(name, b"%d" % number, message_id=f"m{number}", headers={"n": number}) for number in range(2000)]
    assert await channel.publish(sent) == [None] * 2000
    collected = Collected()
    tag = await channel.consume(name, collected)
    arrived = await collected.expect(2000)
    assert bodies(arrived) == [b"%d" % number for number in range(2000)]
    assert [one.properties.message_id for one in arrived] == [f"m{number}" for number in range(2000)]
    assert [one.properties.headers for one in arrived] == [{"n": number} for number in range(2000)]
    assert {(one.consumer_tag, one.exchange, one.key, one.redelivered) for one in arrived} == {(tag, "", name, False)}
    assert [one.tag for one in arrived] == list(range(1, 2001))
    assert collected.reads < 500  # in batches, and not one by one


async def test_a_quorum_queue_confirms_and_delivers(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name, durable=True, x_queue_type="quorum")
    try:
        assert await channel.publish([message(name, delivery_mode=2)] * 100) == [None] * 100
        collected = Collected()
        await channel.qos(200)
        await channel.consume(name, collected)
        await collected.expect(100)
        channel.refuse([1], requeue=True)
        *_, again = await collected.expect(101)
        assert again.redelivered
        assert again.properties.headers["x-delivery-count"] == 1
        channel.acknowledge(up_to=again.tag, singles=[])
    finally:
        await channel.call(commands.Queue.Delete(queue=name))


async def test_many_publishers_on_one_channel_have_their_own_outcomes(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    good = [channel.publish([message(name)] * 700) for _ in range(5)]
    lost = [channel.publish([message("nowhere")] * 3) for _ in range(5)]
    outcomes = await asyncio.gather(*good, *lost)
    assert outcomes[:5] == [[None] * 700] * 5
    assert [[type(one) for one in batch] for batch in outcomes[5:]] == [[Returned] * 3] * 5
    assert await count(channel, name) == 3500


async def test_the_bodies_of_any_size_come_back_as_they_were(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    chunk = 131_072 - 8
    sizes = [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 5 * 1024 * 1024, 0]
    sent = [os.urandom(size) for size in sizes]
    assert await channel.publish([message(name, body) for body in sent]) == [None] * len(sent)
    collected = Collected()
    await channel.consume(name, collected)
    assert bodies(await collected.expect(len(sent))) == sent


async def test_large_bodies_on_several_channels_interleave(connection, name):
    async def both_ways(number: int) -> None:
        channel = await connection.channel(confirms=True)
        await declare(channel, f"{name}-{number}")
        sent = [os.urandom(400_000) for _ in range(5)]
        collected = Collected()
        await channel.consume(f"{name}-{number}", collected)
        assert await channel.publish([message(f"{name}-{number}", body) for body in sent]) == [None] * 5
        assert bodies(await collected.expect(5)) == sent

    await asyncio.gather(*(both_ways(number) for number in range(4)))


async def test_a_message_without_a_queue_comes_back_and_the_others_do_not(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    batch = [message(name if number % 3 else "nowhere", message_id=f"m{number}") for number in range(1500)]
    outcomes = await channel.publish(batch)
    assert [isinstance(one, Returned) for one in outcomes] == [number % 3 == 0 for number in range(1500)]
    assert (outcomes[0].code, outcomes[0].text) == (312, "NO_ROUTE")


async def test_two_with_the_same_id_both_come_back(connection):
    channel = await connection.channel(confirms=True)
    outcomes = await channel.publish([message("nowhere"), message("nowhere"), message("nowhere", message_id="")])
    assert [type(one) for one in outcomes] == [Returned] * 3


async def test_a_full_queue_that_rejects_is_a_nack(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name, x_max_length=2, x_overflow="reject-publish")
    outcomes = await channel.publish([message(name)] * 5)
    assert [type(one) for one in outcomes].count(Nacked) == 3
    assert await channel.publish([message("nowhere")]) != [None]  # the channel is as good as before


async def test_what_cannot_be_written_fails_alone(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    good = message(name)
    too_long = ("", name, True, None, bytes(131_073), b"")
    bad = [message("k" * 256), message(name, exchange="e" * 256), message("\ud800"), too_long]
    outcomes = await channel.publish([good, *bad, good, bad[0]])
    assert [type(one) for one in outcomes] == [
        type(None),
        *[ValueError] * 2,
        UnicodeEncodeError,
        ValueError,
        type(None),
        ValueError,
    ]
    assert "routing key" in str(outcomes[1])
    assert "256 bytes" in str(outcomes[1])
    assert await count(channel, name) == 2


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (commands.Queue.Declare(queue="never-was", passive=True), 404),
        (commands.Queue.Declare(queue="amq.mine"), 403),
        (commands.Exchange.Declare(exchange="amq.topic", exchange_type="fanout", passive=False), 406),
    ],
)
async def test_a_refused_question_closes_its_channel_only(connection, frame, code):
    other = await connection.channel()
    channel = await connection.channel()
    with pytest.raises(ChannelClosed) as refused:
        await channel.call(frame)
    assert refused.value.code == code
    assert channel.is_closed
    assert channel.closed.result().code == code
    with pytest.raises(ChannelClosed, match=str(code)):
        await channel.qos(1)
    await other.qos(1)
    again = await connection.channel()
    assert again.number == channel.number  # it is free again
    await again.qos(1)


async def test_what_is_in_flight_when_the_broker_closes_the_channel_is_said_to_be(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    outcomes = await channel.publish([message(name, exchange="never-was")] * 3)
    assert [(type(one), one.code) for one in outcomes] == [(ChannelClosed, 404)] * 3
    assert [type(one) for one in await channel.publish([message(name)])] == [ChannelClosed]
    channel.acknowledge(up_to=1, singles=[2])  # nothing happens
    channel.refuse([1], requeue=True)
    await channel.close()
    again = await connection.channel(confirms=True)
    assert await again.publish([message(name)]) == [None]


async def test_a_channel_is_closed_and_opened_again_and_again(connection):
    for _ in range(50):
        channel = await connection.channel()
        assert channel.number == 1
        await channel.close()
        assert channel.closed.result().code == 200
        await channel.close()


async def test_deliveries_are_acknowledged_by_prefix_and_singly_and_given_back(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    await channel.publish([message(name, b"%d" % number) for number in range(10)])
    consuming, collected = await connection.channel(), Collected()
    tag = await consuming.consume(name, collected)
    await collected.expect(10)
    consuming.acknowledge(up_to=4, singles=[6, 8])
    consuming.refuse([5], requeue=False)
    await consuming.cancel(tag)
    consuming.refuse([9], requeue=True)
    await consuming.close()  # 7 and 10 go back with it, but no answer says when the queue has them
    while (ready := await count(channel, name)) < 3:
        pass
    assert ready == 3


async def test_without_confirms_written_is_all_that_is_known(connection, name):
    channel = await connection.channel()
    await declare(channel, name)
    assert await channel.publish([message(name)] * 3 + [message("nowhere")]) == [None] * 4
    collected = Collected()
    await channel.consume(name, collected)
    await collected.expect(3)


async def test_the_end_of_a_queue_ends_its_consumer(connection, name):
    channel, other = await connection.channel(), await connection.channel()
    await declare(channel, name)
    ended = asyncio.Event()
    channel.on_cancel = lambda tag: (collected.append(tag), ended.set())
    collected: list[str] = []
    tag = await channel.consume(name, Collected())
    await other.call(commands.Queue.Delete(queue=name))
    await ended.wait()
    assert collected == [tag]
    await channel.cancel(tag)  # nothing to do
    await channel.qos(1)


async def test_who_is_cancelled_leaves_the_channel_in_order(connection, name):
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    asking = asyncio.ensure_future(channel.qos(1))
    publishing = asyncio.ensure_future(channel.publish([message(name)] * 3))
    opening = asyncio.ensure_future(connection.channel())
    await asyncio.sleep(0)  # all have written, none has an answer
    for one in (asking, publishing, opening):
        one.cancel()
    await asyncio.wait((asking, publishing, opening))
    assert all(one.cancelled() for one in (asking, publishing, opening))
    assert await channel.publish([message(name)]) == [None]
    assert await count(channel, name) == 4
    assert (await connection.channel()).number in {2, 3}


async def test_questions_asked_at_once_get_each_its_own_answer(connection, name):
    channel = await connection.channel()
    await declare(channel, name)
    answers = await asyncio.gather(
        channel.qos(1), count(channel, name), channel.consume(name, Collected()), count(channel, name)
    )
    assert answers == [None, 0, f"{channel.number}.1", 0]


@pytest.mark.parametrize(
    "frame", [commands.Basic.Get(queue="q"), commands.Basic.Ack(1), commands.Queue.Declare(queue="q", nowait=True)]
)
async def test_what_has_no_plain_answer_is_no_question(connection, frame):
    channel = await connection.channel()
    with pytest.raises(ValueError, match=frame.name):
        await channel.call(frame)


async def test_a_question_too_long_for_a_frame_is_not_sent(connection):
    channel = await connection.channel()
    with pytest.raises(ValueError, match="131072"):
        await channel.call(commands.Queue.Declare(queue="q", arguments={"x": "y" * 140_000}))
    await channel.qos(1)


async def test_a_connection_closed_by_the_broker_says_why(private_rabbitmq, name):
    connection = await connect(Address.parse(private_rabbitmq.url), heartbeat=15, properties={})
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    await asyncio.to_thread(private_rabbitmq.close_connections)
    lost, _ = await asyncio.gather(connection_end(connection), connection_end(channel))
    assert (type(lost), lost.code) == (ConnectionLost, 320)
    assert "CONNECTION_FORCED" in str(lost)
    assert channel.closed.result() is lost
    assert await channel.publish([message(name)]) == [lost]
    for act in (connection.channel, connection.unblocked, lambda: channel.qos(1)):
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            await act()
    await connection.close()


async def connection_end(ending):
    await asyncio.wait((ending.closed,))
    return ending.closed.result()


async def test_a_connection_that_is_cut_fails_all_that_wait(rabbitmq_url, name):
    address = Address.parse(rabbitmq_url)
    async with Proxy(address.port) as proxy:
        through = replace(address, host="127.0.0.1", port=proxy.port)
        connection = await connect(through, heartbeat=15, properties={})
        channel = await connection.channel(confirms=True)
        await declare(channel, name)
        proxy.swallow()
        waiting = [asyncio.ensure_future(one) for one in (channel.publish([message(name)] * 3), channel.qos(1))]
        await asyncio.sleep(0)
        proxy.reset()
        outcomes, asked = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in outcomes] == [ConnectionLost] * 3
        assert isinstance(asked, ConnectionLost)
        assert connection.closed.done()
        assert channel.is_closed


async def test_a_silent_broker_is_given_up_after_two_heartbeats(rabbitmq_url):
    address = Address.parse(rabbitmq_url)
    async with Proxy(address.port) as proxy:
        through = replace(address, host="127.0.0.1", port=proxy.port)
        connection = await connect(through, heartbeat=1, properties={})
        proxy.swallow(to_service=False)
        lost = await connection_end(connection)
        assert "nothing was heard from the broker for 2 s" in str(lost)


async def test_a_broker_that_takes_nothing_holds_up_the_publisher_and_not_the_memory(rabbitmq_url, name):
    address = Address.parse(rabbitmq_url)
    async with Proxy(address.port) as proxy:
        through = replace(address, host="127.0.0.1", port=proxy.port)
        connection = await connect(through, heartbeat=15, properties={})
        channel = await connection.channel(confirms=True)
        await declare(channel, name)
        proxy.swallow()
        written = 0
        write = connection.write

        def counted(data: bytes) -> None:
            nonlocal written
            written += len(data)
            write(data)

        connection.write = counted  # type: ignore[method-assign]
        publishing = asyncio.ensure_future(channel.publish([message(name, bytes(100_000))] * 600))
        while connection.paused is None:
            await asyncio.sleep(0)
        assert written < 40_000_000  # what the sockets between here and there take, and a window
        proxy.flow()
        assert await publishing == [None] * 600
        assert written > 60_000_000
        await connection.close()


async def test_a_wrong_password_is_refused(rabbitmq_url):
    address = Address.parse(rabbitmq_url)
    wrong = Address(address.host, address.port, address.user, "wrong")
    with pytest.raises(LoginRefused, match="ACCESS_REFUSED"):
        await connect(wrong, heartbeat=15, properties={})


async def test_a_virtual_host_that_does_not_exist_is_said(rabbitmq_url):
    address = Address.parse(rabbitmq_url)
    wrong = Address(address.host, address.port, address.user, address.password, "never-was")
    with pytest.raises(NotAllowed, match="vhost never-was not found"):
        await connect(wrong, heartbeat=15, properties={})


async def test_nobody_there_is_an_os_error():
    with pytest.raises(OSError, match="Connect call failed"):
        await connect(Address("127.0.0.1", 1), heartbeat=15, properties={})


async def test_the_broker_says_what_it_is(connection):
    assert connection.server_properties["product"] == "RabbitMQ"
    assert isinstance(connection.server_properties["version"], str)


async def test_an_alarm_blocks_and_its_end_unblocks(private_rabbitmq, name):
    connection = await connect(Address.parse(private_rabbitmq.url), heartbeat=15, properties={})
    channel = await connection.channel(confirms=True)
    await declare(channel, name)
    await connection.unblocked()
    await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.00000001")
    try:
        publishing = asyncio.ensure_future(channel.publish([message(name)]))
        while not connection.blocked:  # it is said when something is published
            await asyncio.sleep(0.01)
        unblocked = asyncio.ensure_future(connection.unblocked())
    finally:
        await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
    await unblocked
    assert not connection.blocked
    assert await publishing == [None]
    await connection.close()

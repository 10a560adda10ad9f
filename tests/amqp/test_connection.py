"""A connection and its channels, with a broker that does what no RabbitMQ would, or only once a year."""

from __future__ import annotations

import asyncio
import struct

import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.heartbeat import Heartbeat

from flowkit.amqp import ChannelClosed, ConnectionLost, Nacked, Returned
from tests.amqp.asking import Collected, bodies, message
from tests.amqp.scripted import header

DELIVER = commands.Basic.Deliver("1.1", 1, False, "", "k")
RETURN = commands.Basic.Return(312, "NO_ROUTE", "", "k")
MESSAGE = (DELIVER, header(2), ContentBody(b"{}"))


@pytest.fixture
async def connection(scripted):
    made = await scripted.connected()
    yield made
    made.abort()


async def opened(scripted, connection, *, number: int = 1, confirms: bool = False):
    channel, _ = await asyncio.gather(
        connection.channel(confirms=confirms), scripted.open_channel(number, confirms=confirms)
    )
    return channel


async def consuming(scripted, channel, collected):
    asked = asyncio.ensure_future(channel.consume("q", collected))
    question = await scripted.hear(commands.Basic.Consume)
    return asked, question


def raw(kind: int, number: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, number, len(payload)) + payload + end


WHOLE = [marshal(frame, 1) for frame in MESSAGE]
HOSTILE = {
    "an unknown type of frame": (raw(9, 0, b"x"), 501),
    "a wrong end": (raw(1, 0, b"\x00\x0a\x00\x3c\x00", b"\x00"), 501),
    "a header with a wrong end": (b"".join(WHOLE[:2])[:-1] + b"\x00" + WHOLE[2], 501),
    "a body with a wrong end": (b"".join(WHOLE)[:-1] + b"\x00", 501),
    "a message in a message": (WHOLE[0] + b"".join(WHOLE), 505),
    "a delivery with something behind it": (
        raw(1, 1, WHOLE[0][7:-1] + b"x") + b"".join(WHOLE[1:]), 502,
    ),
    "a frame larger than agreed": (struct.pack(">BHI", 3, 1, 131_065), 501),
    "an unknown channel": (marshal(commands.Basic.Ack(1), 2), 504),
    "a message on channel 0": (b"".join(marshal(frame, 0) for frame in MESSAGE), 503),
    "a header without a delivery": (marshal(header(2), 1), 505),
    "a body without a header": (marshal(DELIVER, 1) + marshal(ContentBody(b"{}"), 1), 505),
    "two headers": (b"".join(marshal(frame, 1) for frame in (DELIVER, header(2), header(2))), 505),
    "a delivery in a delivery": (marshal(DELIVER, 1) * 2, 505),
    "a confirm in a delivery": (marshal(DELIVER, 1) + marshal(commands.Basic.Ack(1), 1), 505),
    "a body longer than announced": (b"".join(marshal(it, 1) for it in (DELIVER, header(1), ContentBody(b"{}"))), 501),
    "a body beyond all limits": (marshal(DELIVER, 1) + marshal(header(1 << 30), 1), 501),
    "a body without end": (marshal(DELIVER, 1) + marshal(header((1 << 64) - 1), 1), 501),
    "a header of another class": (marshal(DELIVER, 1) + raw(2, 1, struct.pack(">HHQH", 50, 0, 2, 0)), 501),
    "a header that is cut": (marshal(DELIVER, 1) + raw(2, 1, struct.pack(">HHI", 60, 0, 2)), 502),
    "a delivery for an unknown consumer": (b"".join(marshal(frame, 1) for frame in MESSAGE), 503),
    "a delivery for an unknown consumer with a long name": (
        b"".join(marshal(it, 1) for it in (commands.Basic.Deliver("ü" * 127, 1, False, "", "k"), *MESSAGE[1:])), 503,
    ),
    "a return of nothing that can be read": (
        marshal(RETURN, 1) + raw(2, 1, struct.pack(">HHQHB", 60, 0, 0, 0x80, 9)), 503,
    ),
    "a delivery that is cut": (
        raw(1, 1, b"\x00\x3c\x00\x3c\xff1.1") + marshal(header(2), 1) + marshal(ContentBody(b"{}"), 1), 502,
    ),
    "a return that is cut": (raw(1, 1, b"\x00\x3c\x00\x32\x01\x38\x07NO") + marshal(header(0), 1), 502),
    "a confirm that is cut": (raw(1, 1, b"\x00\x3c\x00\x50\x00"), 502),
    "a method that is cut": (raw(1, 0, b"\x00\x0a"), 502),
    "a known method that is cut": (raw(1, 0, b"\x00\x0a\x00\x32\x01"), 502),
    "an unknown method": (raw(1, 1, b"\x00\x3c\x03\xe7"), 503),
    "an answer that nobody asked for": (marshal(commands.Queue.DeclareOk("q", 1, 1), 1), 503),
    "an answer to basic.get": (marshal(commands.Basic.GetOk(1, False, "", "k", 0), 1), 503),
    "a confirm without confirms": (marshal(commands.Basic.Ack(1), 1), 503),
    "an end that nobody asked for": (marshal(commands.Channel.CloseOk(), 1), 503),
    "a beginning in the middle": (marshal(commands.Connection.Start(), 0), 503),
    "a heartbeat of a channel": (raw(8, 1, b""), 501),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
async def test_what_no_broker_may_send_ends_the_connection_with_a_reason(scripted, connection, case):
    said, code = HOSTILE[case]
    channel = await opened(scripted, connection, confirms="of nothing" in case)
    asked = asyncio.ensure_future(channel.qos(1))
    await scripted.hear(commands.Basic.Qos)
    scripted.say_bytes(said)
    with pytest.raises(ConnectionLost, match="the broker sent") as lost:
        await asked
    assert lost.value.code == code
    told = await scripted.hear(commands.Connection.Close)
    assert told.reply_code == code
    assert told.reply_text[:20] in str(lost.value)
    await scripted.hear_end()
    assert connection.closed.result().code == code
    assert channel.closed.result() is connection.closed.result()


@pytest.mark.parametrize("tag", [2, 0, 1 << 63])
async def test_a_confirm_for_nothing(scripted, connection, tag):
    channel = await opened(scripted, connection, confirms=True)
    publishing = asyncio.ensure_future(channel.publish([message("k")]))
    await scripted.hear(commands.Basic.Publish)
    scripted.say_bytes(raw(1, 1, struct.pack(">IQB", 0x003C0050, tag, 0)))
    (outcome,) = await publishing
    assert isinstance(outcome, ConnectionLost)
    assert "1 were published" in str(outcome)


async def test_a_return_of_nothing(scripted, connection):
    channel = await opened(scripted, connection, confirms=True)
    publishing = asyncio.ensure_future(channel.publish([message("k")]))
    await scripted.hear(commands.Basic.Publish)
    scripted.say(1, commands.Basic.Return(312, "NO_ROUTE", "", "elsewhere"), header(0))
    (outcome,) = await publishing
    assert isinstance(outcome, ConnectionLost)
    assert "message None back" in str(outcome)


async def test_confirms_come_in_any_order_and_by_prefix(scripted, connection):
    channel = await opened(scripted, connection, confirms=True)
    publishing = asyncio.ensure_future(channel.publish([message("k", message_id=f"m{at}") for at in range(10)]))
    await scripted.hear_messages(10)
    returned = commands.Basic.Return(312, "NO_ROUTE", "", "k")
    properties = commands.Basic.Properties(message_id="m4")
    scripted.say(
        1, commands.Basic.Ack(7), commands.Basic.Ack(2), commands.Basic.Nack(3), returned, header(0, properties)
    )
    scripted.say(1, commands.Basic.Ack(5, True), commands.Basic.Ack(5, True), commands.Basic.Ack(7))
    scripted.say(1, commands.Basic.Nack(8, True))
    await asyncio.wait((asyncio.ensure_future(scripted.round_trip(channel)),))
    assert not publishing.done()
    scripted.say(1, commands.Basic.Ack(0, True))
    outcomes = await publishing
    kinds = {2: Nacked, 4: Returned, 5: Nacked, 7: Nacked}
    assert [type(one) for one in outcomes] == [kinds.get(at, type(None)) for at in range(10)]


async def test_what_came_back_has_come_back_whatever_its_confirm_says(scripted, connection):
    channel = await opened(scripted, connection, confirms=True)
    publishing = asyncio.ensure_future(channel.publish([message("k"), message("k"), message("other"), message("k")]))
    await scripted.hear_messages(4)
    back = [RETURN, header(0, commands.Basic.Properties(message_id="m"))]
    scripted.say(1, *back, *back, commands.Basic.Nack(1), commands.Basic.Ack(4, True))
    assert [type(one) for one in await publishing] == [Returned, Returned, type(None), type(None)]


async def test_messages_that_cannot_be_written_are_left_out(scripted, connection):
    channel = await opened(scripted, connection)
    bad = message("k" * 256)
    outcomes = await channel.publish([bad, bad, message("a"), bad, message("b"), bad])
    assert [isinstance(one, ValueError) for one in outcomes] == [True, True, False, True, False, True]
    await scripted.hear_messages(2)
    await scripted.round_trip(channel)


async def test_one_question_at_a_time_and_none_that_nobody_waits_for(scripted, connection):
    channel = await opened(scripted, connection)
    asked = [asyncio.ensure_future(channel.qos(number)) for number in range(4)]
    assert (await scripted.hear(commands.Basic.Qos)).prefetch_count == 0
    await opened(scripted, connection, number=2)  # nothing was said in between
    for one in (asked[0], asked[2]):
        one.cancel()
    await asyncio.sleep(0)
    for number in (1, 3):
        scripted.say(1, commands.Basic.QosOk())
        assert (await scripted.hear(commands.Basic.Qos)).prefetch_count == number
    scripted.say(1, commands.Basic.QosOk())
    await asyncio.wait(asked)
    assert [one.cancelled() for one in asked] == [True, False, True, False]


async def test_a_channel_that_nobody_waits_for_is_closed(scripted, connection):
    opening = asyncio.ensure_future(connection.channel())
    await scripted.hear(commands.Channel.Open)
    opening.cancel()
    await scripted.hear(commands.Channel.Close)
    scripted.say(1, commands.Channel.OpenOk(), commands.Channel.CloseOk())
    await opened(scripted, connection, number=2)
    assert (await opened(scripted, connection)).number == 1


async def test_deliveries_right_behind_the_answer_are_not_lost(scripted, connection):
    channel, collected = await opened(scripted, connection), Collected()
    asked, question = await consuming(scripted, channel, collected)
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag), *MESSAGE, *MESSAGE)
    assert await asked == question.consumer_tag
    assert bodies(await collected.expect(2)) == [b"{}", b"{}"]
    assert collected.reads == 1


async def test_a_body_that_never_comes_holds_up_its_channel_only(scripted, connection):
    channel, collected = await opened(scripted, connection), Collected()
    asked, question = await consuming(scripted, channel, collected)
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag), DELIVER, header(100_000), ContentBody(b"a"))
    await asked
    other = await opened(scripted, connection, number=2)
    await scripted.round_trip(other)
    assert collected.arrived == []
    scripted.say(1, ContentBody(b"b" * 99_999))
    assert bodies(await collected.expect(1)) == [b"a" + b"b" * 99_999]


async def test_a_channel_closed_in_the_middle_of_a_message(scripted, connection):
    channel, collected = await opened(scripted, connection), Collected()
    asked, question = await consuming(scripted, channel, collected)
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag), DELIVER, header(100_000))
    await asked
    scripted.say(1, commands.Channel.Close(406, "PRECONDITION_FAILED - unknown delivery tag 7", 60, 80))
    await scripted.hear(commands.Channel.CloseOk)
    assert channel.closed.result().code == 406
    assert (await opened(scripted, connection)).number == 1
    assert collected.arrived == []


async def test_frames_cut_by_the_end(scripted, connection):
    channel, collected = await opened(scripted, connection), Collected()
    asked, question = await consuming(scripted, channel, collected)
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag))
    await asked
    scripted.say_bytes(b"".join(marshal(frame, 1) for frame in MESSAGE)[:-3])
    scripted.hang_up()
    await asyncio.wait((connection.closed,))
    assert str(connection.closed.result()) == "the broker closed it without a word"
    assert collected.arrived == []


async def test_a_consumer_ended_by_the_broker(scripted, connection):
    channel, collected, ended = await opened(scripted, connection), Collected(), []
    channel.on_cancel = ended.append
    for nowait in (False, True):
        asked, question = await consuming(scripted, channel, collected)
        tag = question.consumer_tag
        scripted.say(1, commands.Basic.ConsumeOk(tag), commands.Basic.Cancel(tag, nowait))
        assert await asked == tag
        if not nowait:
            assert (await scripted.hear(commands.Basic.CancelOk)).consumer_tag == tag
        await scripted.round_trip(channel)  # and no other answer
    assert ended == ["1.1", "1.2"]


async def test_a_broker_that_asks_for_silence(scripted, connection):
    channel = await opened(scripted, connection, confirms=True)
    scripted.say(1, commands.Channel.Flow(False), commands.Channel.Flow(False))
    assert [(await scripted.hear(commands.Channel.FlowOk)).active for _ in range(2)] == [False, False]
    publishing = asyncio.ensure_future(channel.publish([message("k")]))
    await scripted.round_trip(channel)  # and nothing published
    scripted.say(1, commands.Channel.Flow(True))
    assert (await scripted.hear(commands.Channel.FlowOk)).active
    await scripted.hear_messages(1)
    scripted.say(1, commands.Basic.Ack(1))
    assert await publishing == [None]


async def test_a_channel_that_ends_while_silence_is_asked_for(scripted, connection):
    channel = await opened(scripted, connection, confirms=True)
    scripted.say(1, commands.Channel.Flow(False))
    await scripted.hear(commands.Channel.FlowOk)
    publishing = asyncio.ensure_future(channel.publish([message("k")] * 2))
    await asyncio.sleep(0)
    scripted.say(1, commands.Channel.Close(541, "INTERNAL_ERROR", 0, 0))
    assert [(type(one), one.code) for one in await publishing] == [(ChannelClosed, 541)] * 2


async def test_an_alarm_and_the_end_of_the_connection(scripted, connection):
    scripted.say(0, commands.Connection.Blocked("memory"), commands.Connection.Blocked("disk"))
    channel = await opened(scripted, connection)
    assert connection.blocked
    waiting = asyncio.ensure_future(connection.unblocked())
    scripted.say(0, commands.Connection.Unblocked(), commands.Connection.Unblocked())
    await waiting
    assert not connection.blocked
    scripted.say(0, commands.Connection.Blocked("memory"))
    await scripted.round_trip(channel)
    waiting = asyncio.ensure_future(connection.unblocked())
    await asyncio.sleep(0)
    scripted.hang_up()
    with pytest.raises(ConnectionLost):
        await waiting


async def test_both_sides_close_a_channel_at_once(scripted, connection):
    channel = await opened(scripted, connection)
    closing = asyncio.ensure_future(channel.close())
    await scripted.hear(commands.Channel.Close)
    scripted.say(1, commands.Channel.Close(406, "PRECONDITION_FAILED", 0, 0))
    await scripted.hear(commands.Channel.CloseOk)
    await closing
    assert channel.closed.result().code == 406
    opening = asyncio.ensure_future(connection.channel())
    await scripted.hear(commands.Channel.Open)
    assert scripted.number == 2  # the number is not free before the answer to our own
    scripted.say(1, commands.Channel.CloseOk())
    scripted.say(2, commands.Channel.OpenOk())
    await opening
    assert (await opened(scripted, connection)).number == 1


async def test_deliveries_for_a_channel_that_is_being_closed_are_dropped(scripted, connection):
    channel, collected = await opened(scripted, connection), Collected()
    asked, question = await consuming(scripted, channel, collected)
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag))
    await asked
    closing = asyncio.ensure_future(channel.close())
    await scripted.hear(commands.Channel.Close)
    with pytest.raises(ChannelClosed, match="being closed"):
        await channel.qos(1)
    scripted.say(1, *MESSAGE, commands.Channel.CloseOk())
    await closing
    assert collected.arrived == []


async def test_a_connection_closed_in_words(scripted, connection):
    channel = await opened(scripted, connection, confirms=True)
    publishing = asyncio.ensure_future(channel.publish([message("k")]))
    await scripted.hear_messages(1)
    scripted.say(0, commands.Connection.Close(541, "INTERNAL_ERROR", 0, 0), Heartbeat())
    await scripted.hear(commands.Connection.CloseOk)
    await scripted.hear_end()
    (outcome,) = await publishing
    assert (type(outcome), outcome.code, outcome.text) == (ConnectionLost, 541, "INTERNAL_ERROR")


async def test_we_close_in_words(scripted, connection):
    closing = [asyncio.ensure_future(connection.close()) for _ in range(3)]
    assert (await scripted.hear(commands.Connection.Close)).reply_code == 200
    scripted.say(0, commands.Connection.CloseOk())
    await asyncio.gather(*closing)
    await scripted.hear_end()
    await connection.close()
    assert str(connection.closed.result()) == "closed by its owner"


async def test_a_close_that_is_not_answered_can_be_given_up(scripted, connection):
    closing = asyncio.ensure_future(connection.close())
    await scripted.hear(commands.Connection.Close)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await scripted.hear_end()


async def test_heartbeats_are_sent_when_there_is_nothing_else_to_say(scripted):
    connection = await scripted.connected(heartbeat=1)
    assert isinstance(await scripted.hear_any(), Heartbeat)
    scripted.say(0, Heartbeat())
    assert isinstance(await scripted.hear_any(), Heartbeat)
    assert not connection.closed.done()
    connection.abort()


async def test_who_is_heard_now_and_then_is_alive(scripted, connection):
    channel = await opened(scripted, connection)
    for _ in range(20):
        await scripted.round_trip(channel)
        connection._beat(3600)  # and no heartbeat, since something was said
    assert not connection.closed.done()
    for _ in range(7):
        connection._beat(3600)
        assert isinstance(await scripted.hear_any(), Heartbeat)
    assert not connection.closed.done()
    connection._beat(3600)
    assert "nothing was heard" in str(connection.closed.result())
    await scripted.hear_end()


async def test_as_many_channels_as_the_broker_allows(scripted):
    tune = commands.Connection.Tune(channel_max=1, frame_max=0, heartbeat=0)
    connection = await scripted.connected(tune=tune)
    await opened(scripted, connection)
    with pytest.raises(ChannelClosed, match="all 1 channels"):
        await connection.channel()
    connection.abort()


async def test_bodies_are_split_as_agreed(scripted):
    tune = commands.Connection.Tune(channel_max=0, frame_max=4096, heartbeat=0)
    connection = await scripted.connected(tune=tune)
    channel = await opened(scripted, connection)
    await channel.publish([message("k", bytes(10_000))])
    frames = [await scripted.hear_any() for _ in range(5)]
    assert [len(frame.value) for frame in frames[2:]] == [4088, 4088, 10_000 - 2 * 4088]
    scripted.say_bytes(raw(3, 1, bytes(4089)))
    await asyncio.wait((connection.closed,))
    assert connection.closed.result().code == 501


async def test_acknowledgements_go_in_one_write(scripted, connection):
    channel = await opened(scripted, connection)
    written = []
    connection.write = written.append
    channel.acknowledge(up_to=4, singles=[6, 1 << 40])
    channel.acknowledge(up_to=None, singles=[])
    channel.refuse([7, 8], requeue=True)
    channel.refuse([9], requeue=False)
    acks = [(4, True), (6, False), (1 << 40, False)]
    assert written == [
        b"".join(marshal(commands.Basic.Ack(tag, multiple), 1) for tag, multiple in acks),
        b"".join(marshal(commands.Basic.Nack(tag, False, True), 1) for tag in (7, 8)),
        marshal(commands.Basic.Nack(9, False, False), 1),
    ]


async def test_a_batch_goes_in_one_write(scripted, connection):
    channel = await opened(scripted, connection)
    written = []
    connection.write = written.append
    await channel.publish([message("k")] * 100)
    assert len(written) == 1


async def test_answers_that_are_not_taken_do_not_pile_up(scripted, connection, monkeypatch):
    monkeypatch.setattr("flowkit.amqp.connection.MAX_UNSENT", 1000)
    channel = await opened(scripted, connection)
    connection.pause_writing()  # as the socket says when it is full
    scripted.say(1, *[commands.Channel.Flow(False)] * 100)
    await asyncio.wait((channel.closed,))
    assert "not taken" in str(channel.closed.result())


async def test_answers_that_are_taken_again_are_not_counted(scripted, connection, monkeypatch):
    monkeypatch.setattr("flowkit.amqp.connection.MAX_UNSENT", 1000)
    channel = await opened(scripted, connection)
    for _ in range(4):
        connection.pause_writing()
        scripted.say(1, *[commands.Channel.Flow(False)] * 50)
        for _ in range(50):
            await scripted.hear(commands.Channel.FlowOk)
        connection.resume_writing()
    await scripted.round_trip(channel)


async def test_a_callback_that_raises_ends_the_connection(scripted, connection):
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    def fails(_: list) -> None:
        raise ZeroDivisionError("ours")

    channel = await opened(scripted, connection)
    asked, question = await consuming(scripted, channel, fails)
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag), *MESSAGE)
    await asked
    await asyncio.wait((connection.closed,))
    assert "ours" in str(connection.closed.result())
    assert isinstance(heard[0]["exception"], ZeroDivisionError)


async def test_properties_that_cannot_be_read_are_the_readers_business(scripted, connection):
    channel, collected = await opened(scripted, connection), Collected()
    asked, question = await consuming(scripted, channel, collected)
    bad = raw(2, 1, struct.pack(">HHQH", 60, 0, 2, 0x2000) + b"\xff\xff\xff\xff")
    scripted.say(1, commands.Basic.ConsumeOk(question.consumer_tag))
    await asked
    scripted.say_bytes(marshal(DELIVER, 1) + bad + marshal(ContentBody(b"{}"), 1))
    scripted.say(1, *MESSAGE)
    first, second = await collected.expect(2)
    with pytest.raises(ValueError, match="properties"):
        _ = first.properties
    assert second.properties.headers == {}

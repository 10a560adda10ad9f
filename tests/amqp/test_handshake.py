"""The beginning of a connection, with a broker that goes wrong at each of its stages."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from pamqp import commands
from pamqp.frame import marshal

from flowkit.amqp import Address, AmqpError, ConnectionLost, LoginRefused, NotAllowed, NotAmqp, connect
from tests.amqp.scripted import START, TUNE


async def failure(scripted, *lines) -> BaseException:
    """What connecting raises, when the broker follows these lines."""

    async def act() -> None:
        for line in lines:
            answer = line()
            if answer is not None:
                await answer

    connecting = connect(scripted.address, heartbeat=0, properties={})
    error, _ = await asyncio.gather(connecting, act(), return_exceptions=True)
    assert isinstance(error, AmqpError | OSError), error
    await scripted.hear_end_of_socket()
    return error


async def test_what_we_say_of_ourselves(scripted):
    connecting = asyncio.ensure_future(
        connect(
            Address("127.0.0.1", scripted.address.port, "ü", "p w", "v/1"), heartbeat=30, properties={"product": "p"}
        )
    )
    await scripted.greet()
    scripted.say(0, START)
    login = await scripted.hear(commands.Connection.StartOk)
    assert (login.mechanism, login.response) == ("PLAIN", "\0ü\0p w")
    assert login.client_properties["product"] == "p"
    assert login.client_properties["capabilities"] == {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    }
    scripted.say(0, TUNE)
    await scripted.hear(commands.Connection.TuneOk)
    assert (await scripted.hear(commands.Connection.Open)).virtual_host == "v/1"
    scripted.say(0, commands.Connection.OpenOk(), commands.Connection.Blocked("memory"))
    connection = await connecting
    assert connection.server_properties == {"product": "Scripted"}
    assert connection.blocked
    connection.abort()


@pytest.mark.parametrize(
    ("theirs", "agreed"),
    [
        ((0, 0, 0), (2047, 131_072, 60)),
        ((1, 4096, 1), (1, 4096, 1)),
        ((65_535, 1 << 20, 600), (2047, 131_072, 60)),
    ],
)
async def test_the_lower_of_both_limits_counts(scripted, theirs, agreed):
    channel_max, frame_max, heartbeat = theirs
    tune = commands.Connection.Tune(channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat)
    connection, answer = await asyncio.gather(
        connect(scripted.address, heartbeat=60, properties={}), scripted.shake_hands(tune)
    )
    assert (answer.channel_max, answer.frame_max, answer.heartbeat) == agreed
    connection.abort()


async def test_the_heartbeat_of_the_address_counts_before_ours(scripted):
    address = Address.parse(f"amqp://127.0.0.1:{scripted.address.port}/?heartbeat=7")
    connection, answer = await asyncio.gather(connect(address, heartbeat=60, properties={}), scripted.shake_hands())
    assert answer.heartbeat == 7
    connection.abort()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"AMQP\x00\x01\x00\x00",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"\x00",
        b"\x01\x00\x00\xff\xff\xff\xff",  # a first frame of four gigabytes
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\x00",  # another end of the frame
        marshal(commands.Connection.Start(), 1),
        marshal(TUNE, 0),
        marshal(commands.Connection.Blocked(), 0),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_something_else_answers(scripted, said, first):
    error = await failure(scripted, scripted.accept if first else scripted.greet, lambda: scripted.say_bytes(said))
    assert isinstance(error, NotAmqp), repr(error)


async def test_what_answers_is_shown(scripted):
    error = await failure(scripted, scripted.greet, lambda: scripted.say_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert "HTTP/1.1 400" in str(error)


STAGES = ("header", "start", "tune", "open")


def until(scripted, stage):
    """The lines of a broker up to a stage of the handshake."""
    lines = [
        scripted.greet,
        lambda: scripted.say(0, START), lambda: scripted.hear(commands.Connection.StartOk),
        lambda: scripted.say(0, TUNE), lambda: scripted.hear(commands.Connection.TuneOk),
        lambda: scripted.hear(commands.Connection.Open),
    ]  # fmt: skip
    return lines[: {"header": 1, "start": 3, "tune": 5, "open": 6}[stage]]


@pytest.mark.parametrize("stage", STAGES)
async def test_a_broker_that_hangs_up(scripted, stage):
    error = await failure(scripted, *until(scripted, stage), scripted.hang_up)
    assert isinstance(error, ConnectionLost)
    assert error.code is None


@pytest.mark.parametrize("stage", STAGES)
async def test_a_broker_that_shuts_down(scripted, stage):
    goodbye = commands.Connection.Close(320, "CONNECTION_FORCED - broker forced connection closure", 0, 0)
    lines = [*until(scripted, stage), lambda: scripted.say(0, goodbye)]
    error = await failure(scripted, *lines)
    assert isinstance(error, ConnectionLost)
    assert error.code == 320
    assert "CONNECTION_FORCED" in str(error)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_broker_that_falls_silent_costs_no_socket(scripted, stage):
    connecting = asyncio.ensure_future(connect(scripted.address, heartbeat=0, properties={}))
    for line in until(scripted, stage):
        answer = line()
        if answer is not None:
            await answer
    assert not connecting.done()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await scripted.hear_end_of_socket()


@pytest.mark.parametrize("stage", STAGES[1:])
async def test_a_frame_out_of_turn(scripted, stage):
    error = await failure(scripted, *until(scripted, stage), lambda: scripted.say(0, START))
    assert isinstance(error, ConnectionLost)
    assert error.code == 503
    assert "Connection.Start" in str(error)


async def test_a_password_refused(scripted):
    refusal = commands.Connection.Close(403, "ACCESS_REFUSED - Login was refused using PLAIN", 0, 0)
    error = await failure(scripted, *until(scripted, "start"), lambda: scripted.say(0, refusal))
    assert isinstance(error, LoginRefused)
    assert "Login was refused" in error.text


async def test_a_broker_that_takes_no_passwords(scripted):
    start = commands.Connection.Start(mechanisms="EXTERNAL")
    error = await failure(scripted, scripted.greet, lambda: scripted.say(0, start))
    assert isinstance(error, LoginRefused)
    assert "EXTERNAL" in error.text


@pytest.mark.parametrize(
    "text", ["NOT_ALLOWED - vhost x not found", "NOT_ALLOWED - access to vhost 'x' refused for user 'u'"]
)
async def test_a_virtual_host_refused(scripted, text):
    refusal = commands.Connection.Close(530, text, 0, 0)
    error = await failure(scripted, *until(scripted, "open"), lambda: scripted.say(0, refusal))
    assert isinstance(error, NotAllowed)
    assert error.text == text


async def test_frames_too_small_for_amqp(scripted):
    tune = commands.Connection.Tune(channel_max=0, frame_max=100, heartbeat=0)
    error = await failure(scripted, *until(scripted, "start"), lambda: scripted.say(0, tune))
    assert isinstance(error, NotAmqp)


async def test_tls_to_a_broker_that_is_silent_costs_no_socket(scripted):
    address = Address("127.0.0.1", scripted.address.port, tls=ssl.create_default_context())
    connecting = asyncio.ensure_future(connect(address, heartbeat=0, properties={}))
    await scripted.accept()
    assert (await scripted.hear_bytes())[:1] == b"\x16"  # a client hello
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await scripted.hear_end_of_socket()


async def test_tls_to_a_broker_without_it(scripted):
    address = Address("127.0.0.1", scripted.address.port, tls=ssl.create_default_context())
    connecting = asyncio.ensure_future(connect(address, heartbeat=0, properties={}))
    await scripted.accept()
    scripted.say_bytes(b"AMQP\x00\x00\x09\x01")
    with pytest.raises(ssl.SSLError):
        await connecting

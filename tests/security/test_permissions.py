"""Each role's rights on a real RabbitMQ: what it needs works, and everything else is refused."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed
from aiormq import ChannelAccessRefused

from flowkit.broker.definitions import definitions, password_hash
from flowkit.wire.access import Login, Role, parse_all
from flowkit.wire.topology import Topology
from tests.services.rabbitmq import RabbitMQ

PASSWORD = secrets.token_hex(8)
NODES = ("resize", "other")
STANDING = ("starts", "commands", "tasks", "results", "runs", "logs", "workers", "control", "dead")
Act = Callable[[AbstractChannel], Awaitable[object]]


@pytest.fixture(scope="module")
def realm(private_rabbitmq_server, tmp_path_factory) -> Realm:
    return make_realm(private_rabbitmq_server, tmp_path_factory.mktemp("definitions"))


def make_realm(server: RabbitMQ, folder: Path) -> Realm:
    """A namespace with its topology and a login for each role, imported as an operator would; and the broker's port."""
    namespace = f"p{secrets.token_hex(4)}"
    logins = parse_all(
        {f"{namespace}-{role}": f"{role}: resize" if role is Role.WORKER else str(role) for role in Role}
    )
    file = folder / "definitions.json"
    hashes = {login.name: password_hash(PASSWORD) for login in logins}
    file.write_text(json.dumps(definitions(Topology(namespace), nodes=NODES, logins=logins, hashes=hashes)))
    server.ctl("import_definitions", str(file))
    return Realm(namespace, server.port, {login.role: login for login in logins})


class Realm:
    """The acts that can be tried, on names of one namespace."""

    def __init__(self, namespace: str, port: int, logins: dict[Role, Login]) -> None:
        self.namespace, self.port, self.logins = namespace, port, logins

    @asynccontextmanager
    async def channel(self, role: Role) -> AsyncIterator[AbstractChannel]:
        address = f"amqp://{self.logins[role].name}:{PASSWORD}@127.0.0.1:{self.port}/"
        connection = await aio_pika.connect(address, timeout=10)
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def may(self, role: Role, act: Act) -> bool:
        """Whether the broker lets this role do it, on a connection of its own."""
        async with self.channel(role) as channel:
            try:
                await act(channel)
                # Whatever was refused without waiting for an answer is heard of by the next question.
                await (await channel.get_underlay_channel()).basic_qos(prefetch_count=1)
            except ChannelAccessRefused:
                return False
        return True

    def acts(self) -> dict[str, Act]:
        """Everything that could be tried, by a name that says it."""
        name, acts = Topology(self.namespace).name, dict[str, Act]()
        for exchange in STANDING:
            acts[f"publish {exchange}"] = publish(name(exchange))
        acts["publish into a queue"] = publish("", name("results"))
        acts["publish elsewhere"] = publish("amq.topic")
        for node in NODES:
            acts[f"consume tasks.{node}"] = consume(name("tasks", node))
            acts[f"purge tasks.{node}"] = purge(name("tasks", node))
            acts[f"declare tasks.{node}"] = declare(Topology(self.namespace), node)
            acts[f"delete tasks.{node}"] = delete(name("tasks", f"never-{node}"))
        for queue in ("starts", "commands", "results", "workers", "dead", "unreadable"):
            acts[f"consume {queue}"] = consume(name(queue))
            acts[f"delete {queue}"] = delete(name(queue))
        acts["consume logs"] = consume(name("logs"), arguments={"x-stream-offset": "next"})
        for ear in ("control", "runs"):
            acts[f"listen to {ear}"] = listen(name(ear, "me"), name(ear))
        acts["listen to results"] = listen(name("runs", "spy"), name("results"))
        acts["listen to tasks"] = listen(name("control", "spy"), name("tasks"))
        acts["name the owner"] = make_owner(Topology(self.namespace))
        acts["make a queue of its own"] = listen(f"mine-{secrets.token_hex(4)}", None)
        acts["make an exchange"] = exchange_of(f"mine-{secrets.token_hex(4)}")
        acts["remove an exchange"] = remove(name("results"))
        return acts


def publish(exchange: str, key: str = "x") -> Act:
    async def act(channel: AbstractChannel) -> None:
        # Not mandatory, and a key that nothing is bound by: a message is accepted, and goes nowhere.
        underlay = await channel.get_underlay_channel()
        await underlay.basic_publish(b"{}", exchange=exchange, routing_key=key, mandatory=False)

    return act


def consume(queue: str, arguments: dict[str, str] | None = None) -> Act:
    async def act(channel: AbstractChannel) -> None:
        await channel.set_qos(prefetch_count=1)
        underlay = await channel.get_underlay_channel()

        async def ignore(message: object) -> None:
            pass

        await underlay.basic_consume(queue, ignore, arguments=arguments or {})

    return act


def purge(queue: str) -> Act:
    async def act(channel: AbstractChannel) -> None:
        await (await channel.get_underlay_channel()).queue_purge(queue)

    return act


def declare(topology: Topology, node: str) -> Act:
    async def act(channel: AbstractChannel) -> None:
        queue = topology.tasks(node)
        declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in queue.bindings:
            await declared.bind(binding.exchange, binding.key)

    return act


def make_owner(topology: Topology) -> Act:
    """Declare the queue that names the owner, publish its message, look at it, delete it, as a takeover does."""

    async def act(channel: AbstractChannel) -> None:
        owner, underlay = topology.owner("1" * 32), await channel.get_underlay_channel()
        await channel.declare_queue(owner.name, durable=True, arguments=dict(owner.arguments))
        await underlay.basic_publish(b"{}", exchange="", routing_key=owner.name)
        await channel.declare_queue(owner.name, passive=True)
        await underlay.queue_delete(owner.name)

    return act


def delete(queue: str) -> Act:
    async def act(channel: AbstractChannel) -> None:
        await (await channel.get_underlay_channel()).queue_delete(queue)

    return act


def listen(queue: str, exchange: str | None) -> Act:
    async def act(channel: AbstractChannel) -> None:
        declared = await channel.declare_queue(queue, exclusive=True)
        if exchange is not None:
            await declared.bind(exchange, "#")
        await consume(queue)(channel)

    return act


def exchange_of(name: str) -> Act:
    async def act(channel: AbstractChannel) -> None:
        await channel.declare_exchange(name, "fanout", durable=True)

    return act


def remove(exchange: str) -> Act:
    async def act(channel: AbstractChannel) -> None:
        await (await channel.get_underlay_channel()).exchange_delete(exchange, if_unused=True)

    return act


OWN_TASKS = {"consume tasks.resize", "purge tasks.resize"}
ALL_TASKS = {f"{verb} tasks.{node}" for verb in ("consume", "purge", "declare", "delete") for node in NODES}
NEEDED = {
    Role.COORDINATOR: ALL_TASKS
    | {f"publish {name}" for name in ("tasks", "runs", "control", "dead", "into a queue")}
    | {f"consume {name}" for name in ("starts", "commands", "results", "workers", "dead", "unreadable", "logs")}
    | {"name the owner"},
    Role.WORKER: OWN_TASKS | {"publish results", "publish logs", "publish workers", "listen to control"},
    Role.SCRIPT: {"publish starts", "publish logs"},
    Role.STARTER: {"publish starts", "listen to runs"},
    Role.OPERATOR: {"publish starts", "publish commands", "listen to runs", "consume logs"},
    Role.TAIL: {"consume logs"},
}


@pytest.mark.parametrize("role", NEEDED)
async def test_a_role_may_do_what_it_needs_and_nothing_else(realm, role):
    acts = realm.acts()
    assert NEEDED[role] <= set(acts)
    assert {name for name, act in acts.items() if await realm.may(role, act)} == NEEDED[role]


async def test_an_admin_may_do_everything_in_the_namespace(private_rabbitmq_server, tmp_path):
    realm = make_realm(private_rabbitmq_server, tmp_path)  # of its own: it really deletes
    refused = {name for name, act in realm.acts().items() if not await realm.may(Role.ADMIN, act)}
    assert refused == {"publish elsewhere", "make a queue of its own", "make an exchange"}


async def test_nobody_may_publish_in_the_name_of_another(realm):
    victim = realm.logins[Role.COORDINATOR].name

    async def forge(channel: AbstractChannel) -> None:
        exchange = await channel.get_exchange(f"{realm.namespace}.results", ensure=False)
        await exchange.publish(aio_pika.Message(b"{}", user_id=victim), "x", mandatory=False)

    async with realm.channel(Role.WORKER) as channel:
        with pytest.raises(ChannelClosed, match="user_id"):
            await forge(channel)

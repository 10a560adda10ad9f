"""One process of a simulation, from its beginning until it is killed: all it does to the world passes here.

From the moment of its death on nothing it does has an effect, whatever its code tries to put in order: as after
``kill -9``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TypeVar

from flowkit.broker.memory import MemoryBroker
from flowkit.broker.memory.consumer import MemoryConsumer
from flowkit.broker.memory.server import Server
from flowkit.broker.protocol import Consumer, Delivery, Outgoing, QueueState
from flowkit.errors import PublishError, StoreUnreachable
from flowkit.store.protocol import Store, Transaction
from flowkit.store.views import Queries
from flowkit.testing.faults import Fates, Fault
from flowkit.wire import messages as wire
from flowkit.wire.topology import Exchange, Part, Queue

T = TypeVar("T")
LINK = frozenset({Fault.DISCONNECT, Fault.WIPE})
MORTAL = frozenset({Fault.CRASH})
CLOCK = frozenset({Fault.CLOCK})
STORE = frozenset({Fault.LOSE_COMMIT})
AWAY = frozenset({Fault.STORE_AWAY, Fault.STORE_SLOW})
LONG_AWAY = 20.0  # seconds
LONG_SLOW = 60.0  # seconds
AN_HOUR = 3600.0  # seconds
SLOW = 0.2  # seconds by which a message is overtaken at most


class Life:
    """One life of a process.

    Args:
        name: of the process.
        role: ``coordinator``, ``worker`` or ``client``; a client, which is the test itself, is never killed.
        server: the broker.
        store: shared by all.
        fates: decides what goes wrong.
        jump: sets the wall's clock, by so many seconds.
        announced: takes the runs whose ends the broker confirms.
        on_results: called with itself and each message of results before that is published.
    """

    def __init__(
        self, name: str, role: str, server: Server, store: Store, *, fates: Fates, jump: Callable[[float], None],
        announced: set[str], on_results: Callable[[Life, bytes], None],
    ) -> None:  # fmt: skip
        self.name, self.role, self._jump = name, role, jump
        self.dead = False
        self.connection = MemoryBroker(server)
        self.broker, self.store = Link(self, server), Hand(self, store)
        self.task: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        self.failure: BaseException | None = None  # what its code raised while it lived
        self.fates = fates
        self.announced, self.on_results = announced, on_results

    async def step(self, what: str, can: frozenset[Fault]) -> Fault | None:
        """One step; a fault that is not about this process alone is left to the caller."""
        if self.dead:
            await self.rest()
        possible = (can if self.role != "client" else can - MORTAL) | CLOCK
        fault = self.fates.step(self.name, what, role=self.role, can=possible)
        if fault is Fault.CLOCK:
            self._jump(self.fates.chance.uniform(-AN_HOUR, AN_HOUR))
        if fault is Fault.CRASH:
            await self.die()
            await self.rest()
        return fault

    async def die(self) -> None:
        """Be gone, at once."""
        self.dead = True
        self.over.set()
        self.connection.go_down()
        await self.connection.close()
        if self.task is not None:
            self.task.cancel()

    def ended(self, task: asyncio.Task[None]) -> None:
        """Its code has come to an end; what a dead one raised means nothing."""
        error = None if task.cancelled() else task.exception()
        if not self.dead:
            self.failure = error
            self.over.set()

    async def rest(self) -> NoReturn:
        """In peace: what the process would do next is never done."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            await asyncio.get_running_loop().create_future()
        raise asyncio.CancelledError


class Hand:
    """The store, as one process reaches it. A transaction is one step: before it nothing is written, after it all."""

    def __init__(self, life: Life, store: Store) -> None:
        self._life, self._store = life, store
        self._away_until = self._slow_until = 0.0  # by the loop's clock

    @property
    def url(self) -> str:
        """Its address."""
        return self._store.url

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        """Run ``function`` in one transaction."""
        await self._reach("transaction")
        result = await self._store.transact(function)
        if await self._life.step("committed", MORTAL | STORE) is Fault.LOSE_COMMIT:
            raise StoreUnreachable(self.url, "the connection was lost while committing, which went through")
        return result

    async def query(self, function: Callable[[Queries], T]) -> T:
        """Run ``function`` over the read-only queries."""
        await self._reach("query")
        return await self._store.query(function)

    async def close(self) -> None:
        """It stays open: the others have it too."""

    async def _reach(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        fault = await self._life.step(what, MORTAL | STORE | AWAY)
        if fault is Fault.STORE_AWAY:
            self._away_until = now + self._life.fates.chance.uniform(0, LONG_AWAY)
        if fault is Fault.STORE_SLOW:
            self._slow_until = now + self._life.fates.chance.uniform(0, LONG_SLOW)
        if now < self._slow_until:
            await asyncio.sleep(self._slow_until - now)
            if self._life.dead:
                await self._life.rest()
        if now < self._away_until:
            raise StoreUnreachable(self.url, "connection refused")
        if fault is Fault.LOSE_COMMIT:
            raise StoreUnreachable(self.url, "the connection was lost before the commit")


class Link:
    """The broker, as one process reaches it."""

    def __init__(self, life: Life, server: Server) -> None:
        self._life, self._server = life, server
        self._broker = life.connection

    @property
    def url(self) -> str:
        """Its address: the same for all connections."""
        return self._broker.url

    @property
    def connected(self) -> bool:
        """Whether publishing works now."""
        return self._broker.connected

    @property
    def blocked_reason(self) -> str | None:
        """Why it accepts no messages."""
        return self._broker.blocked_reason

    async def find_alarm(self, timeout: float) -> str | None:
        """Ask whether it accepts messages."""
        return await self._broker.find_alarm(timeout)

    @property
    def generation(self) -> int:
        """Rises with every new connection."""
        return self._broker.generation

    async def connect(self, timeout: float) -> None:
        """Make sure that it answers."""
        await self._broker.connect(timeout)

    async def wait_connected(self) -> None:
        """Return when ``connected``."""
        await self._broker.wait_connected()

    async def declare(self, parts: Iterable[Part]) -> list[Part]:
        """Declare exchanges, queues and bindings, one after the other: much can happen in between."""
        wanted = list(parts)
        while not await self._declared(wanted):
            pass  # anew over each connection, as any broker does it
        return []

    async def _declared(self, parts: Sequence[Part]) -> bool:
        """Declare all; False when the connection was lost in the middle."""
        generation = self.generation
        for part in parts:
            await self._look(f"declare {part.name}")
            if generation != self.generation:
                return False
            await self._broker.declare([part])
        return True

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish all."""
        fault = await self._life.step(f"publish {_told(messages)}", MORTAL | LINK | _mishaps(messages))
        self._cut(fault)
        if fault is Fault.REORDER:
            await asyncio.sleep(self._life.fates.chance.uniform(0, SLOW))
        elif fault is Fault.LOSE_CONFIRM:
            self._broker.lose_confirms()
        elif fault is Fault.DUPLICATE:
            await self._broker.publish(messages)
        for message in messages:
            if message.type == wire.Result.TYPE:
                self._life.on_results(self._life, message.body)
        verdicts = await self._broker.publish(messages)
        for message, verdict in zip(messages, verdicts, strict=True):
            if message.type == wire.RunEnded.TYPE and verdict is None and wire.REFUSED not in message.headers:
                self._life.announced.add(message.correlation_id or "")
        await self._life.step("confirmed", MORTAL)
        return verdicts

    def consume(
        self, queue: Queue, *, prefetch: int, offset: int | str | None = None, own_connection: bool = False
    ) -> Consumer:
        """Consume a queue from now on."""
        # On its own connection or not: when the process dies, or the link is cut, all are.
        consumer = self._broker.consume(queue, prefetch=prefetch, offset=offset, own_connection=own_connection)
        if self._life.dead:  # the broker hears nothing of it, and a wipe connects all consumers that it knows
            assert isinstance(consumer, MemoryConsumer)
            del self._server.consumers[consumer]
        return Taking(self._life, self, consumer, queue)

    async def inspect(self, queue: str) -> QueueState | None:
        """Look at a queue without changing it."""
        await self._look(f"inspect {queue}")
        return await self._broker.inspect(queue)

    async def exists(self, exchange: Exchange) -> bool:
        """Whether the exchange exists."""
        await self._look(f"exists {exchange.name}")
        return await self._broker.exists(exchange)

    async def missing(self, parts: Iterable[Part]) -> list[Part]:
        """Which of these do not exist."""
        await self._look("look for missing parts")
        return await self._broker.missing(parts)

    async def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        await self._look(f"delete {queue}")
        await self._broker.delete(queue)

    async def close(self) -> None:
        """Close all links."""
        await self._broker.close()

    async def step(self, what: str) -> None:
        """A step at which the link may be cut."""
        self._cut(await self._life.step(what, MORTAL | LINK))

    async def _look(self, what: str) -> None:
        await asyncio.sleep(0)  # others get a turn while one waits for the broker's answer
        await self.step(what)

    def _cut(self, fault: Fault | None) -> None:
        if fault is Fault.DISCONNECT:
            self._broker.disconnect()
        elif fault is Fault.WIPE:
            self._server.wipe()


class Taking:
    """A consumer, as one process reaches it."""

    def __init__(self, life: Life, link: Link, consumer: Consumer, queue: Queue) -> None:
        self._life, self._link, self._consumer = life, link, consumer
        self._queue = queue.name.rpartition(".")[0] if queue.exclusive else queue.name  # whose name may be made up
        self._mixes = MORTAL if queue.stream else MORTAL | {Fault.REORDER}

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive now."""
        return self._consumer.connected

    @property
    def reconnects(self) -> int:
        """How many times the connection was lost and made again."""
        return self._consumer.reconnects

    @property
    def locked(self) -> bool:
        """Whether another connection holds this exclusive queue."""
        return self._consumer.locked

    async def wait_locked(self) -> None:
        """Return when ``locked``."""
        await self._consumer.wait_locked()

    @property
    def session(self) -> int:
        """Rises whenever what was delivered may have been given back."""
        return self._consumer.session

    async def wait_arrived(self) -> int | None:
        """Return when all that was delivered has arrived."""
        return await self._consumer.wait_arrived()

    @property
    def deletions(self) -> int:
        """How many times its queue was deleted."""
        return self._consumer.deletions

    async def wait_connected(self) -> None:
        """Return when ``connected``, or stopped."""
        await self._consumer.wait_connected()

    async def receive(self, limit: int) -> list[Delivery]:
        """What is there, at least one."""
        if self._life.dead:
            await self._life.rest()
        deliveries = await self._consumer.receive(limit)
        if deliveries:
            fault = await self._life.step(f"receive {len(deliveries)} of {self._queue}", self._mixes)
            if fault is Fault.REORDER:
                self._life.fates.chance.shuffle(deliveries)
        return deliveries

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these."""
        await self._link.step(f"acknowledge {len(deliveries)} of {self._queue}")
        await self._consumer.ack(deliveries)
        await self._life.step("acknowledged", MORTAL)

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back."""
        await self._link.step(f"requeue {len(deliveries)} of {self._queue}")
        await self._consumer.requeue(deliveries)

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Give these up."""
        await self._link.step(f"reject {len(deliveries)} of {self._queue}")
        await self._consumer.reject(deliveries)

    async def suspend(self) -> None:
        """Give all back, and take no more deliveries."""
        await self._link.step(f"suspend {self._queue}")
        await self._consumer.suspend()

    async def resume(self) -> None:
        """Take deliveries again."""
        await self._consumer.resume()

    async def stop(self) -> None:
        """Take no more deliveries."""
        await self._consumer.stop()

    async def close(self) -> None:
        """Stop and let go."""
        await self._consumer.close()


def _mishaps(messages: Sequence[Outgoing]) -> frozenset[Fault]:
    """What can happen to messages on their way; lines of a log and announcements are only ever late or lost."""
    durable = any(message.durable for message in messages)
    return frozenset({Fault.REORDER, *((Fault.LOSE_CONFIRM, Fault.DUPLICATE) if durable else ())})


def _told(messages: Sequence[Outgoing]) -> str:
    return ", ".join(f"{message.type} {message.key}".strip() for message in messages)

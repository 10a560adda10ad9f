"""What stands between the connections of the in-memory broker: exchanges, queues, routing, dead letters."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flowkit.broker.change import Change
from flowkit.broker.memory.queue import Held, MemoryQueue, MemoryStream, Taker
from flowkit.broker.memory.topics import matches
from flowkit.broker.protocol import Outgoing
from flowkit.broker.refusal import mismatch
from flowkit.wire.topology import Exchange, Part, Queue


class NotConnected(Exception):
    """The connection is down, or the broker has raised an alarm."""


class MissingExchange(Exception):
    """There is no such exchange (AMQP 404)."""


class NoRoom(Exception):
    """A queue with ``reject-publish`` is full; the other queues of the message have it."""


@dataclass(slots=True)
class _Standing:
    """An exchange with its bindings, in the order they were made: queue name and binding key."""

    exchange: Exchange
    bindings: dict[tuple[str, str], None] = field(default_factory=dict)


class Server:
    """One broker. It belongs to one event loop at a time, as everything in it is plain synchronous code."""

    def __init__(self) -> None:
        self.queues: dict[str, MemoryQueue] = {}
        self.consumers: dict[Taker, None] = {}  # of all connections, those that are not closed
        self.blocked: str | None = None  # why, while nobody can publish
        self.wipes = 0
        self._exchanges: dict[str, _Standing] = {}
        self.change = Change()  # a declaration, an acknowledgement, the end of an alarm: whatever may help who waits

    def declare(self, part: Part) -> None:
        """Make an exchange or a queue with its bindings, or see that it stands there already.

        Raises:
            Refused: it stands there with other arguments.
            MissingExchange: a binding names one that is not there.
        """
        if isinstance(part, Exchange):
            standing = self._exchanges.setdefault(part.name, _Standing(part)).exchange
            if standing.kind != part.kind:
                raise mismatch(part, "type", part.kind, standing.kind)
        else:
            self._declare_queue(part, None)
        self._attach()

    def declare_exclusive(self, part: Queue, owner: object) -> None:
        """Make a connection's own queue, as long as no other connection has one of that name.

        Raises:
            MissingExchange
        """
        standing = self.queues.get(part.name)
        if standing is None or standing.owner is owner:
            self._declare_queue(part, owner)

    def has_exchange(self, name: str) -> bool:
        """Whether an exchange of that name exists."""
        return name in self._exchanges

    def route(self, message: Outgoing) -> int:
        """Store a message in every queue that is bound for it and has room.

        Returns:
            in how many queues.

        Raises:
            MissingExchange
            NoRoom: not in all of them.
        """
        queues = self._routes(message.exchange, message.key)
        full = [queue for queue in queues if queue.full]
        for queue in queues:
            if queue not in full:
                queue.put(message)
        if full:
            raise NoRoom
        return len(queues)

    def drop_queue(self, name: str) -> None:
        """Delete a queue, its messages and bindings; its consumers are told."""
        queue = self.queues.pop(name, None)
        if queue is None:
            return
        for standing in self._exchanges.values():
            standing.bindings = {bound: None for bound in standing.bindings if bound[0] != name}
        for taker in tuple(queue.takers):
            taker.cancelled()
        self._attach()

    def drop_exchange(self, name: str) -> None:
        """Delete an exchange and its bindings."""
        self._exchanges.pop(name, None)

    def drop_binding(self, exchange: str, queue: str) -> None:
        """Delete the bindings between an exchange and a queue."""
        standing = self._exchanges[exchange]
        standing.bindings = {bound: None for bound in standing.bindings if bound[0] != queue}

    def wipe(self) -> None:
        """Forget everything, and cut all connections."""
        self.wipes += 1
        consumers = tuple(self.consumers)
        for taker in consumers:
            taker.cut()
        self.queues.clear()
        self._exchanges.clear()
        for taker in consumers:
            taker.restore()

    def _attach(self) -> None:
        """Something changed: let consumers begin whose queue is there now."""
        for taker in tuple(self.consumers):
            taker.attach()
        self.change.notify()

    def _declare_queue(self, part: Queue, owner: object | None) -> None:
        for binding in part.bindings:
            if binding.exchange not in self._exchanges:
                raise MissingExchange(binding.exchange)
        standing = self.queues.get(part.name)
        if standing is None:
            kind = MemoryStream if part.stream else MemoryQueue
            self.queues[part.name] = kind(part, owner, self._bury)
        else:
            wanted, there = dict(part.arguments), standing.arguments
            for name in sorted({*wanted, *there}):
                if wanted.get(name) != there.get(name):
                    raise mismatch(part, name, wanted.get(name), there.get(name))
        for binding in part.bindings:
            self._exchanges[binding.exchange].bindings[part.name, binding.key] = None

    def _routes(self, exchange: str, key: str) -> list[MemoryQueue]:
        if exchange == "":  # the default exchange: every queue by its name
            return [self.queues[key]] if key in self.queues else []
        standing = self._exchanges.get(exchange)
        if standing is None:
            raise MissingExchange(exchange)
        match standing.exchange.kind:
            case "fanout":
                names = {name: None for name, _ in standing.bindings}
            case "topic":
                names = {name: None for name, pattern in standing.bindings if matches(pattern, key)}
            case "direct":
                names = {name: None for name, bound in standing.bindings if bound == key}
        return [self.queues[name] for name in names]

    def _bury(self, queue: MemoryQueue, held: Held, reason: str) -> None:
        """Send a message to the dead-letter exchange, as RabbitMQ does: with ``x-death``, newest first."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        message, name = held.message, queue.declared.name
        headers = dict(message.headers)
        deaths: list[dict[str, Any]] = [dict(death) for death in headers.get("x-death", ())]
        before = next((d for d in deaths if (d["queue"], d["reason"]) == (name, reason)), None)
        if before is None:
            before = {
                "count": 0, "reason": reason, "queue": name, "time": datetime.now(UTC),
                "exchange": message.exchange, "routing-keys": [message.key],
            }  # fmt: skip
        else:
            deaths.remove(before)
        before["count"] += 1
        headers["x-death"] = [before, *deaths]
        for what, value in (("exchange", message.exchange), ("queue", name), ("reason", reason)):
            headers.setdefault(f"x-first-death-{what}", value)
        key = str(queue.arguments.get("x-dead-letter-routing-key", message.key))
        dead = message._replace(exchange=str(exchange), key=key, headers=headers)
        try:
            self.route(dead)
        except (MissingExchange, NoRoom):
            return  # RabbitMQ drops it too, or holds it (at-least-once) until the exchange is there

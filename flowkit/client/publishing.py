"""Publishes starts and commands until the broker has accepted them, for as long as a client waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from flowkit.broker import Broker, Outgoing
from flowkit.errors import (
    AccessRefused,
    BrokerBlocked,
    BrokerUnreachable,
    FlowKitError,
    PublishError,
    QueueFull,
    Refused,
    TimedOut,
    TooLarge,
    Unroutable,
    UsageError,
)
from flowkit.wire.topology import Topology

RETRY = 0.2  # seconds between attempts while a queue is missing or full
T = TypeVar("T")


class RequestPublisher:
    """Publishes to the exchanges for starts and commands, and declares what is needed for that.

    Args:
        broker: connected or connecting.
        topology: names of exchanges and queues.
        patience: seconds to wait for the broker, and until a queue is there and has room.
        check_open: raises when the client was closed.
    """

    def __init__(self, broker: Broker, topology: Topology, *, patience: float, check_open: Callable[[], None]) -> None:
        self._broker, self._topology, self._patience = broker, topology, patience
        self._check_open = check_open
        self._declared: set[str] = set()
        self._verdicts: dict[str, PublishError | None] = {}  # by exchange: why the last attempt was not accepted

    async def publish_within_patience(self, short: str, messages: Sequence[Outgoing]) -> None:
        """Publish all, or raise why they were not accepted in time.

        Args:
            short: name of the exchange, without the namespace.
            messages: what to publish.

        Raises:
            BrokerUnreachable, BrokerBlocked: there is no connection, or an alarm.
            TimedOut: nobody has declared the exchange or its queue.
            Refused: the broker does not allow it, or the queue is full.
            UsageError: a message is too large.
        """
        await self.within_patience(short, self.publish(short, messages))

    async def within_patience(self, short: str, work: Coroutine[Any, Any, T]) -> T:
        """Do what needs this exchange, or raise why it was not possible in time; errors as above."""
        self._verdicts[short] = None
        try:
            async with asyncio.timeout(self._patience):
                return await work
        except TimeoutError:
            raise self._late(short) from None

    async def publish(self, short: str, messages: Sequence[Outgoing]) -> None:
        """Publish until all are accepted: somebody may declare a queue that is missing, or make room in a full one."""
        while messages:
            await self.declare(short)
            verdicts = await self._broker.publish(messages)
            self._check_open()  # it may have been closed meanwhile, which is no refusal of the broker's
            for verdict in verdicts:
                self._verdicts[short] = verdict or self._verdicts.get(short)
                if isinstance(verdict, Unroutable):
                    self._declared.discard(short)  # the queue or the exchange was deleted
                elif verdict is not None and not isinstance(verdict, QueueFull):
                    raise _refusal(verdict)
            messages = [message for message, verdict in zip(messages, verdicts, strict=True) if verdict is not None]
            if messages:
                await asyncio.sleep(RETRY)

    async def declare(self, short: str) -> None:
        """Declare an exchange, and the queue that keeps what is sent there, as far as permissions go."""
        if short in self._declared:
            return
        name = self._topology.name(short)
        queues = {"starts": (self._topology.starts,), "commands": (self._topology.commands,)}
        dead_letters = (self._topology.unreadable, self._topology.dead) if short in queues else ()
        exchanges = {exchange.name: exchange for exchange in self._topology.exchanges}
        needed = [exchanges[name], *([exchanges[self._topology.name("dead")]] if dead_letters else [])]
        await self._broker.declare([*needed, *dead_letters, *queues.get(short, ())])
        self._declared.add(short)

    def declare_again(self) -> None:
        """Take nothing as declared: the broker behind a new connection may have forgotten everything."""
        self._declared.clear()

    def _late(self, short: str) -> FlowKitError:
        """Why something was not done in time."""
        url, name, patience = self._broker.url, self._topology.name(short), f"{self._patience:g} s"
        if self._broker.blocked_reason is not None:
            return BrokerBlocked(url, self._broker.blocked_reason)
        if not self._broker.connected:
            return BrokerUnreachable(url, f"no connection for {patience}")
        if isinstance(self._verdicts.get(short), QueueFull):
            return Refused(
                f"broker {url}: queue {name!r} is full, it has refused messages for {patience}. Check that a "
                "coordinator reads it ('flowkit doctor'), or raise its limit (max-length in a policy), then try again."
            )
        return TimedOut(
            f"broker {url}: nobody has declared {name!r} within {patience}, "
            "and this login may not. Start a coordinator ('flowkit coordinator')."
        )


def _refusal(verdict: PublishError) -> Exception:
    if isinstance(verdict, TooLarge):
        return UsageError(f"the inputs are too large: {verdict}. Put the data elsewhere and pass its address.")
    return AccessRefused(f"the broker did not take it: {verdict}")

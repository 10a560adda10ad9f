"""What FlowKit needs of a broker: a few methods, batches in and batches out.

A broker only delivers; the store is the truth. Whatever it accepted is delivered at least once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from flowkit.errors import PublishError
from flowkit.wire.topology import Exchange, Part, Queue

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
COUNT = "x-delivery-count"  # https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # RabbitMQ 4's own default; 3.x takes 128 MiB
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Outgoing(NamedTuple):
    """A message to publish.

    ``durable`` messages are persistent, mandatory, and tried again over every reconnect until the broker has answered
    for them. The others (logs, heartbeats, control) travel on a link of their own, may have no queue, and are
    dropped with ``NotSent`` when that link is down. The broker gives each attempt a fresh ``message_id``.
    """

    exchange: str
    key: str
    body: bytes
    type: str
    durable: bool = True
    mandatory: bool = True  # of durable ones only: False where nobody needs to listen (flowkit.runs)
    correlation_id: str | None = None
    app_id: str | None = None
    headers: Mapping[str, Any] = NOTHING
    message_id: str | None = None  # only a caller whose id must survive (a start without run_id) sets it


class Properties(Protocol):
    """What stands beside the body of a message that arrived."""

    message_type: str | None
    message_id: str | None
    correlation_id: str | None
    app_id: str | None
    user_id: str | None

    @property
    def headers(self) -> Mapping[str, Any]:
        """Its headers."""


@dataclass(slots=True)
class PlainProperties:
    """Properties whose values are at hand."""

    message_type: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    user_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


class Delivery:
    """A message that arrived.

    Args:
        queue: where it comes from.
        body: what was published.
        tag: means something to the consumer it came from, and to nobody else.
        redelivered: it was delivered before.
        exchange: where it was published to.
        key: its routing key.
        offset: of a stream.
        properties: reads what stands beside the body, when somebody asks: most are never asked.
    """

    __slots__ = ("_properties", "_read", "body", "exchange", "key", "offset", "queue", "redelivered", "tag")

    def __init__(
        self,
        queue: str,
        body: bytes,
        tag: int,
        *,
        redelivered: bool = False,
        exchange: str = "",
        key: str = "",
        offset: int | None = None,
        properties: Callable[[], Properties],
    ) -> None:
        self.queue, self.body, self.tag, self.redelivered = queue, body, tag, redelivered
        self.exchange, self.key, self.offset = exchange, key, offset
        self._read = properties
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """What stands beside the body."""
        if self._properties is None:
            self._properties = self._read()
        return self._properties

    @property
    def delivery_count(self) -> int:
        """How often it was delivered before, as far as the queue counts (quorum: yes)."""
        count = self.headers.get(COUNT, 0) if self.redelivered else 0
        return count if isinstance(count, int) else 0

    @property
    def traceparent(self) -> str | None:
        """The header, where it is as https://www.w3.org/TR/trace-context/ has it: else it would only confuse."""
        value = self.headers.get("traceparent")
        return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None

    @property
    def type(self) -> str | None:
        """The kind of message."""
        return self.properties.message_type

    @property
    def message_id(self) -> str | None:
        """Of one attempt to publish it."""
        return self.properties.message_id

    @property
    def correlation_id(self) -> str | None:
        """Of the run, mostly."""
        return self.properties.correlation_id

    @property
    def app_id(self) -> str | None:
        """The node, mostly."""
        return self.properties.app_id

    @property
    def user_id(self) -> str | None:
        """The login that published it, for which the broker vouches."""
        return self.properties.user_id

    @property
    def headers(self) -> Mapping[str, Any]:
        """Its headers."""
        return self.properties.headers


@dataclass(frozen=True, slots=True)
class QueueState:
    """What a passive declaration says of a queue: messages ready, consumers."""

    ready: int
    consumers: int


class Consumer(Protocol):
    """Deliveries of one queue, over every reconnect. Nothing of the caller's runs inside its callbacks."""

    async def receive(self, limit: int) -> list[Delivery]:
        """What is there, at least one, at most ``limit``; waits while there is none, never to fill a batch.

        After ``stop`` it returns what had arrived, then an empty list for ever.

        Raises:
            FlowKitError: the queue cannot be consumed and trying again cannot help (403, 406).
        """

    async def wait_connected(self) -> None:
        """Return when ``connected``, or stopped: from then on nothing published to the queue's exchange is missed.

        Raises:
            FlowKitError: as ``receive``.
        """

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these. Those of a connection that has died since are dropped: they will be delivered again."""

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back, to be delivered again (by RabbitMQ 3.x counted as a delivery)."""

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """These cannot be processed by anybody: the broker moves them where the queue's dead letters go."""

    async def suspend(self) -> None:
        """Give back what is not acknowledged, and take no more deliveries until ``resume``.

        What was given back is dropped when it is acknowledged later. RabbitMQ 3.x counts each message that is given
        back as delivered once. Not for streams and exclusive queues.
        """

    async def resume(self) -> None:
        """Take deliveries again after ``suspend``, which counts as one of the ``reconnects``."""

    async def stop(self) -> None:
        """Take no more deliveries; those taken can still be acknowledged."""

    async def close(self) -> None:
        """Stop and let go: what was not acknowledged goes back to the queue."""

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive now."""

    @property
    def reconnects(self) -> int:
        """How many times deliveries may have been missed, and can arrive again.

        That is when the connection was lost, the queue was deleted, or the consumer was suspended.
        """

    @property
    def deletions(self) -> int:
        """How many times the broker has ended this consumer because the queue was deleted."""

    @property
    def session(self) -> int:
        """Rises whenever what was delivered and not acknowledged has been given back, or may have been.

        That is with each of the ``reconnects``, and also when the consumer began anew without having missed anything.
        """

    async def wait_arrived(self) -> int | None:
        """Return when all that the broker has delivered in this session so far has arrived.

        Returns:
            the tag of the newest delivery that has arrived and was not given back with its session, 0 when there is
            none; deliveries have rising tags. None when the consumer is not connected, or the session has ended
            meanwhile.
        """

    @property
    def locked(self) -> bool:
        """Whether another connection holds this exclusive queue (405), which is tried again at 0.1-1 s."""

    async def wait_locked(self) -> None:
        """Return when ``locked``."""


class Broker(Protocol):
    """A connection to a broker: publish, consume, declare, look."""

    @property
    def url(self) -> str:
        """The address with the password masked."""

    async def connect(self, timeout: float) -> None:
        """Make sure that it answers.

        Args:
            timeout: seconds to go on trying; a refused login, a missing virtual host or a port that speaks no
                AMQP fails at once.

        Raises:
            BrokerUnreachable
        """

    async def declare(self, parts: Iterable[Part]) -> list[Part]:
        """Declare exchanges, queues and bindings; again after each reconnect is the caller's choice.

        Waits through reconnects, and begins anew after each: the broker may have lost what it had. Exclusive queues
        are not for here: ``consume`` declares them.

        Returns:
            the parts that permissions forbade (403): the caller goes on, somebody else may have declared them.

        Raises:
            Refused: a part stands there with other arguments (406); the message says which.
            NotFound: a binding names an exchange that does not exist.
            UsageError: an exclusive queue.
        """

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish all, pipelined, with one wait for their confirms.

        Durable messages wait through reconnects and alarms. Nothing else is tried again here: what a queue or an
        exchange refuses is the caller's to try again, so that it does not hold up the others.

        Returns:
            for each message None when it was confirmed, else why not:

            | verdict | the message | to be tried again |
            | --- | --- | --- |
            | ``Unroutable`` | has no queue, or no exchange (durable ones) | when it was declared |
            | ``QueueFull`` | was refused by a queue (``basic.nack``) | when the queue has room |
            | ``TooLarge`` | is over the size limit | never |
            | ``NotSent`` | is transient and the link is down or the exchange is missing; any once closed | at will |
            | ``PublishError`` | may not be published there (403), or cannot be written as AMQP | never |

        Raises:
            BrokerUnreachable: of durable messages, when the broker has refused the login for so long that it is final.
        """

    def consume(
        self, queue: Queue, *, prefetch: int, offset: int | str | None = None, own_connection: bool = False
    ) -> Consumer:
        """Consume a queue from now on, through reconnects.

        An exclusive queue is declared on each connection first, and deleted when its consumer closes. Where a
        delivery limit counts, a consumer whose connection died begins again with a prefetch of 1, doubled by every
        acknowledgement: what killed the connection shall not count against bystanders.

        Args:
            queue: what to consume; a queue that is missing (404) is tried again at 0.1-1 s.
            prefetch: how many unacknowledged deliveries may be out at a time.
            offset: of a stream: a number, ``first``, ``last`` or ``next``; after a reconnect it goes on behind the
                last delivery that arrived.
            own_connection: not on the connection that this broker's consumers share; a stream always has its own.
        """

    async def inspect(self, queue: str) -> QueueState | None:
        """Look at a queue without changing it; None when it does not exist."""

    async def exists(self, exchange: Exchange) -> bool:
        """Whether the exchange exists."""

    async def missing(self, parts: Iterable[Part]) -> list[Part]:
        """Which of these exchanges and queues do not exist; what this login may not see counts as existing."""

    async def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it; a missing one is no error."""

    @property
    def connected(self) -> bool:
        """Whether publishing works now: the link is up, and not blocked by an alarm of the broker."""

    @property
    def blocked_reason(self) -> str | None:
        """Why the broker accepts no messages (an alarm: ``low on memory``, ``low on disk``), as far as it has said so.

        A broker says so to a connection that publishes, and to no other.
        """

    async def find_alarm(self, timeout: float) -> str | None:
        """Ask whether the broker accepts messages, by publishing one to nobody.

        Returns:
            ``blocked_reason``; None too when there was no answer within ``timeout`` seconds.
        """

    @property
    def generation(self) -> int:
        """Rises with every new connection for publishing: the caller declares and relays again when it changed."""

    async def wait_connected(self) -> None:
        """Return when ``connected``."""

    async def close(self) -> None:
        """Close all links within 3 s or abandon them."""

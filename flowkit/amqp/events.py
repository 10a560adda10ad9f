"""What a connection has to say: messages in batches, confirms in batches, and every rare frame by itself."""

from __future__ import annotations

from dataclasses import dataclass

from pamqp.base import Frame

from flowkit.amqp.errors import NotAmqp, ProtocolViolation
from flowkit.amqp.properties import Properties


class Arrived:
    """A message that was delivered. ``raw`` are its properties as bytes, read when ``properties`` is asked for."""

    __slots__ = ("_properties", "body", "consumer_tag", "exchange", "key", "raw", "redelivered", "tag")

    def __init__(  # noqa: PLR0917 - by position is half as dear, and it is done for every message
        self,
        consumer_tag: str,
        tag: int,
        redelivered: bool,  # noqa: FBT001
        exchange: str,
        key: str,
        raw: bytes,
        body: bytes,
    ) -> None:
        self.consumer_tag, self.tag, self.redelivered = consumer_tag, tag, redelivered
        self.exchange, self.key, self.raw, self.body = exchange, key, raw, body
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """The properties; the same object each time.

        Raises:
            MalformedProperties
        """
        if self._properties is None:
            self._properties = Properties(self.raw)
        return self._properties


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Messages for one consumer, in order."""

    channel: int
    consumer_tag: str
    arrived: list[Arrived]


@dataclass(frozen=True, slots=True)
class Confirms:
    """What became of published messages, in order: delivery tag, whether it means all up to it, whether it is good."""

    channel: int
    confirms: list[tuple[int, bool, bool]]


@dataclass(frozen=True, slots=True)
class SentBack:
    """A message that was published and went nowhere; ``raw`` are its properties."""

    channel: int
    code: int
    text: str
    exchange: str
    key: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Method:
    """Any other frame."""

    channel: int
    frame: Frame


Event = Deliveries | Confirms | SentBack | Method | NotAmqp | ProtocolViolation

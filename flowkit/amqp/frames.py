"""Frames to send: those of every message by hand, every other one by pamqp."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from pamqp.base import Frame
from pamqp.frame import marshal

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
END = b"\xce"
OVERHEAD = 8  # bytes of a frame around its payload
TEMPLATES = 1024  # kept of one channel

_HEADER = Struct(">BHIHHQ")  # kind, channel, size, class, weight, size of the body
_END_AND_BODY = Struct(">BBHI")  # the end of the header frame; kind, channel and size of a body frame
_BODY = Struct(">BHI")
_TAGGED = Struct(">BHIIQBB")  # kind, channel, size, method, delivery tag, bits, the end
# Exchange, routing key, mandatory, message id, properties as bytes, body.
Publication = tuple[str, str, bool, str | None, bytes, bytes]

_PUBLISH, _ACK, _NACK = 0x003C0028, 0x003C0050, 0x003C0078
_MULTIPLE, _REQUEUE = 1, 2


def method(number: int, frame: Frame) -> bytes:
    """A rare frame.

    Raises:
        ValueError: a value in it that AMQP cannot carry.
    """
    try:
        return marshal(frame, number)
    except TypeError as error:
        raise ValueError(f"{frame.name}: {error}") from None


def acks(number: int, *, up_to: int | None, singles: Sequence[int]) -> bytes:
    """Acknowledge everything up to a delivery tag, and further ones."""
    first = b"" if up_to is None else _TAGGED.pack(1, number, 13, _ACK, up_to, _MULTIPLE, 0xCE)
    return first + b"".join([_TAGGED.pack(1, number, 13, _ACK, tag, 0, 0xCE) for tag in singles])


def nacks(number: int, tags: Sequence[int], *, requeue: bool) -> bytes:
    """Give deliveries back, or up."""
    bits = _REQUEUE if requeue else 0
    return b"".join([_TAGGED.pack(1, number, 13, _NACK, tag, bits, 0xCE) for tag in tags])


class PublishFrames:
    """Writes the messages of one channel.

    Args:
        number: the channel's.
        frame_max: bytes of the largest frame, as negotiated.
    """

    def __init__(self, number: int, frame_max: int) -> None:
        self._number, self._chunk = number, frame_max - OVERHEAD
        self._methods: dict[tuple[str, str, bool], bytes] = {}

    def add(self, parts: list[bytes], publication: Publication) -> int:
        """Append the frames of one message to what will be written; return the bytes of its body.

        Raises:
            ValueError: AMQP cannot carry it, such as a key over 255 bytes.
        """
        exchange, key, mandatory, _, properties, body = publication
        publish = self._methods.get((exchange, key, mandatory)) or self._method(publication)
        number, size, described = self._number, len(body), len(properties) + 12
        if described > self._chunk:
            raise ValueError(f"properties of {len(properties)} bytes do not fit into a frame of {self._chunk}")
        header = _HEADER.pack(2, number, described, 60, 0, size)
        if 0 < size <= self._chunk:
            parts += (publish, header, properties, _END_AND_BODY.pack(0xCE, 3, number, size), body, END)
            return size
        parts += (publish, header, properties, END)
        for at in range(0, size, self._chunk):
            piece = body[at : at + self._chunk]
            parts += (_BODY.pack(3, number, len(piece)), piece, END)
        return size

    def _method(self, publication: Publication) -> bytes:
        """The frame of basic.publish, which is the same for all messages to one place."""
        exchange, key, mandatory, *_ = publication
        named = bytearray(2)  # a reserved number
        for what, text in (("exchange", exchange), ("routing key", key)):
            raw = text.encode()
            if len(raw) > 255:
                raise ValueError(f"the {what} {text[:40]!r}… has {len(raw)} bytes, and AMQP carries 255")
            named.append(len(raw))
            named += raw
        named.append(1 if mandatory else 0)
        frame = _BODY.pack(1, self._number, len(named) + 4) + _PUBLISH.to_bytes(4, "big") + named + END
        if len(self._methods) >= TEMPLATES:
            self._methods.clear()  # keys that are made up for each message; the few that return are soon here again
        self._methods[exchange, key, mandatory] = frame
        return frame

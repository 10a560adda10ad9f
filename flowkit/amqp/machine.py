"""AMQP 0-9-1 as it arrives: bytes in, events out, no socket.

Whatever comes, the time it takes is in proportion to its length, what is kept is bounded, and the last event of bytes
that are no AMQP is a ``ProtocolViolation``. How the bytes were cut makes no difference.
"""

from __future__ import annotations

import struct
from struct import Struct

from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import unmarshal

from flowkit.amqp.errors import (
    CHANNEL_ERROR,
    COMMAND_INVALID,
    FRAME_ERROR,
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    NotAmqp,
    ProtocolViolation,
)
from flowkit.amqp.events import Arrived, Confirms, Deliveries, Event, Method, SentBack

FRAME_MAX = 131_072  # bytes, proposed to the broker and accepted until it has said what it takes
MAX_BODY = 512 * 1024 * 1024  # bytes; what RabbitMQ allows at most
_FRAME = Struct(">BHI")  # kind, channel, size
_HEADER = Struct(">BHIHHQ")  # the same, class, weight, size of the body
_TAG = Struct(">QBB")  # delivery tag, bits, length of the exchange's name
_TAG_BITS = Struct(">QB")
_U32 = Struct(">I")
_METHOD, _HEAD, _BODY, _HEARTBEAT, _END = 1, 2, 3, 8, 0xCE
_DELIVER, _RETURN, _ACK, _NACK, _GET_OK = 0x003C003C, 0x003C0032, 0x003C0050, 0x003C0078, 0x003C0047
_CHANNEL_CLOSE = 0x00140028
_DELIVER_BYTES = _DELIVER.to_bytes(4, "big")


class _Content:
    """A message of which not everything has arrived."""

    __slots__ = ("awaits", "body", "method", "raw", "size")

    def __init__(self, method: bytes) -> None:
        self.method = method  # the payload of basic.deliver or basic.return
        self.awaits = _HEAD  # the kind of frame that comes next
        self.raw, self.size = b"", 0  # its properties, and the bytes of its body, as announced
        self.body = bytearray()  # not a list of pieces: a body in pieces of one byte would take forty times its size


class Machine:
    """The receiving side of one connection."""

    def __init__(self) -> None:
        self.frame_max = FRAME_MAX
        self.channels = {0}  # the numbers on which something may arrive
        self._rest, self._need = bytearray(), 7  # an unfinished frame, and how many bytes make it worth a look
        self._contents: dict[int, _Content] = {}
        self._names: dict[bytes, str] = {}  # of consumers and exchanges, which are few and come with every message
        self._events: list[Event] = []
        self._batches: dict[tuple[int, bytes], list[Arrived]] = {}  # since the last event that was something else
        self._begun = self._broken = False

    def close(self, number: int) -> None:
        """Nothing more may arrive on this channel."""
        self.channels.discard(number)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes as they came; return what is complete with them. After a violation nothing more is."""
        if self._broken:
            return []
        if not self._begun:
            self._begun = True
            if data[0] != _METHOD:
                return self._break(NotAmqp(f"it begins with {data[:40]!r}"))
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
        events = self._events = list[Event]()
        self._batches = {}
        try:
            used = self._frames(data)
        except ProtocolViolation as violation:
            return self._break(violation)
        except (IndexError, struct.error):
            return self._break(ProtocolViolation("a frame that ends in the middle of a field", SYNTAX_ERROR))
        self._rest = bytearray(data[used:])
        return events

    def _break(self, violation: NotAmqp | ProtocolViolation) -> list[Event]:
        self._broken = True
        self._rest.clear()
        self._contents.clear()
        self._events.append(violation)
        return self._events

    def _frames(self, data: bytes) -> int:
        """Take all frames that are complete; return where the first that is not begins."""
        total, at, largest, frame_at, channels = len(data), 0, self.frame_max - 8, _FRAME.unpack_from, self.channels
        while total - at >= 7:
            kind, number, size = frame_at(data, at)
            end = at + 7 + size
            if size > largest:
                raise ProtocolViolation(f"a frame of {size + 8} bytes, {self.frame_max} were agreed on", FRAME_ERROR)
            if end >= total:
                self._need = end + 1 - at
                return at
            if data[end] != _END:
                raise ProtocolViolation(f"a frame that ends with {data[end]:#04x}", FRAME_ERROR)
            if number not in channels:
                raise ProtocolViolation(f"a frame for channel {number}, which is not open", CHANNEL_ERROR)
            if kind == _METHOD and data[at + 7 : at + 11] == _DELIVER_BYTES:
                behind = self._message(number, data, at + 7, end)
                if behind:
                    at = behind
                    continue
            self._frame(kind, number, data, at + 7, end)
            at = end + 1
        self._need = 7
        return at

    def _message(self, number: int, data: bytes, at: int, end: int) -> int:
        """Take a message whose three frames lie here in one piece, as nearly all do; return where it ends.

        The payload of its first frame stands from ``at`` to ``end``. Anything unusual: 0, and each frame goes the long
        way, which also finds out what is wrong.
        """
        start, total, largest = end + 1, len(data), self.frame_max - 8
        if total - start < 19:
            return 0
        head, head_number, described, family, _, size = _HEADER.unpack_from(data, start)
        behind = start + 8 + described
        last: int = behind + 7 + size
        if last >= total or not 0 < size <= largest or not 14 <= described <= largest or number in self._contents:
            return 0
        if (head, head_number, family, *_FRAME.unpack_from(data, behind)) != (_HEAD, number, 60, _BODY, number, size):
            return 0
        if data[behind - 1] != _END or data[last] != _END:
            return 0
        self._deliver(number, data, at, end, data[start + 19 : behind - 1], data[behind + 7 : last])
        return last + 1

    def _deliver(  # noqa: PLR0917 - by position is half as dear
        self, number: int, data: bytes, at: int, end: int, raw: bytes, body: bytes
    ) -> None:
        """Take a message that is complete; the payload of its basic.deliver stands from ``at`` to ``end``."""
        name_end = at + 5 + data[at + 4]
        tag, redelivered, length = _TAG.unpack_from(data, name_end)
        key_at = name_end + 11 + length
        if key_at + data[key_at - 1] != end:
            raise ProtocolViolation("a basic.deliver that does not fill its frame", SYNTAX_ERROR)
        consumer, exchange = data[at + 5 : name_end], data[name_end + 10 : key_at - 1]
        batch = self._batches.get((number, consumer))
        if batch is None:
            batch = self._batches[number, consumer] = []
            self._events.append(Deliveries(number, self._name(consumer), batch))
        # A text of others that is no UTF-8 shall neither end the connection nor be a string that nobody can write.
        key = str(data[key_at:end], "utf-8", "backslashreplace")
        batch.append(Arrived(self._name(consumer), tag, redelivered & 1 == 1, self._name(exchange), key, raw, body))

    def _frame(self, kind: int, number: int, data: bytes, at: int, end: int) -> None:
        """Take one frame, whose payload stands from ``at`` to ``end``."""
        if kind in (_BODY, _HEAD):
            content = self._contents.get(number)
            if content is None or content.awaits != kind:
                raise ProtocolViolation(f"a part of no message, on channel {number}", UNEXPECTED_FRAME)
            if kind == _HEAD:
                self._header(content, data, at, end)
            elif len(content.body) + end - at > content.size:
                raise ProtocolViolation(f"a body of more than the {content.size} bytes announced", FRAME_ERROR)
            else:
                content.body += data[at:end]
            if len(content.body) == content.size:
                del self._contents[number]
                self._complete(number, content)
        elif kind == _METHOD:
            self._method(number, data, at, end)
        elif kind != _HEARTBEAT or number or at != end:
            raise ProtocolViolation(f"an unknown frame of type {kind}", FRAME_ERROR)

    def _method(self, number: int, data: bytes, at: int, end: int) -> None:
        (method,) = _U32.unpack_from(data, at)
        if number in self._contents:
            if method != _CHANNEL_CLOSE:
                raise ProtocolViolation(f"a method in the middle of a message, on channel {number}", UNEXPECTED_FRAME)
            del self._contents[number]
        if method in (_ACK, _NACK):
            if end - at != 13:
                raise ProtocolViolation("a confirm that does not fill its frame", SYNTAX_ERROR)
            tag, bits = _TAG_BITS.unpack_from(data, at + 4)
            last = self._events[-1] if self._events else None
            if not isinstance(last, Confirms) or last.channel != number:
                last = Confirms(number, [])
                self._add(last)
            last.confirms.append((tag, bool(bits & 1), method == _ACK))
        elif method in (_DELIVER, _RETURN):
            self._contents[number] = _Content(data[at:end])
        elif method == _GET_OK:
            raise ProtocolViolation("an answer to basic.get, which nobody asked", COMMAND_INVALID)
        else:
            self._add(Method(number, _rare(data[at - 7 : end + 1])))

    def _header(self, content: _Content, data: bytes, at: int, end: int) -> None:
        if end - at < 14:
            raise ProtocolViolation("a header without properties", SYNTAX_ERROR)
        _, _, _, family, _, content.size = _HEADER.unpack_from(data, at - 7)
        if family != 60:
            raise ProtocolViolation(f"a header of class {family}", FRAME_ERROR)
        if content.size > MAX_BODY:
            raise ProtocolViolation(f"a body of {content.size} bytes, {MAX_BODY} are taken at most", FRAME_ERROR)
        content.raw, content.awaits = data[at + 12 : end], _BODY

    def _complete(self, number: int, content: _Content) -> None:
        """The last part of a message that came in several pieces, or that was sent back."""
        method = content.method
        if method[:4] == _DELIVER_BYTES:
            self._deliver(number, method, 0, len(method), content.raw, bytes(content.body))
            return
        text_end = 7 + method[6]
        exchange_end = text_end + 1 + method[text_end]
        if exchange_end + 1 + method[exchange_end] != len(method):
            raise ProtocolViolation("a basic.return that does not fill its frame", SYNTAX_ERROR)
        texts = (method[7:text_end], method[text_end + 1 : exchange_end], method[exchange_end + 1 :])
        text, exchange, key = (str(raw, "utf-8", "backslashreplace") for raw in texts)
        self._add(SentBack(number, int.from_bytes(method[4:6], "big"), text, exchange, key, content.raw))

    def _add(self, event: Event) -> None:
        """An event of another kind: deliveries behind it must not come before it."""
        self._events.append(event)
        self._batches.clear()

    def _name(self, raw: bytes) -> str:
        name = self._names.get(raw)
        if name is None:
            if len(self._names) >= 256:
                self._names.clear()
            name = self._names[raw] = str(raw, "utf-8", "backslashreplace")
        return name


def _rare(frame: bytes) -> Frame:
    try:
        _, _, method = unmarshal(frame)
    except Exception as error:  # the library's border: a table without sense raises nearly anything in it
        known = commands.INDEX_MAPPING.get(int.from_bytes(frame[7:11], "big"))
        if known is None:
            raise ProtocolViolation(f"an unknown method {frame[7:11].hex()}", COMMAND_INVALID) from error
        raise ProtocolViolation(f"{known.__qualname__} that cannot be read", SYNTAX_ERROR) from error
    assert isinstance(method, Frame)
    return method

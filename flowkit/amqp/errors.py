"""What can go wrong between here and a broker, one tree.

    AmqpError
    ├── NotAmqp            something else than AMQP 0-9-1 answers there
    ├── LoginRefused       the broker knows no such login, or not with this password
    ├── NotAllowed         the virtual host does not exist, or not for this login
    ├── ConnectionLost     the connection has ended, for whatever reason
    ├── ChannelClosed      one channel has ended, by the broker (it says why) or by its owner
    ├── ProtocolViolation  the other side sent what it may not
    ├── MalformedProperties   the properties of one message cannot be read
    ├── Returned           no queue took a message
    └── Nacked             the broker refused a message, such as a full queue does

Each can be copied (``copy.copy``): one that is told to many is raised as a copy, so that none collects the tracebacks.
"""

from __future__ import annotations

FRAME_ERROR, SYNTAX_ERROR, COMMAND_INVALID, CHANNEL_ERROR, UNEXPECTED_FRAME = 501, 502, 503, 504, 505


class AmqpError(Exception):
    """The root of the tree."""


class NotAmqp(AmqpError):
    """Something else than AMQP 0-9-1 answers there; ``text`` shows how it begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class LoginRefused(AmqpError):
    """The broker does not take this user with this password; ``text`` is what it says."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class NotAllowed(AmqpError):
    """The virtual host does not exist, or this login may not use it; ``text`` is what the broker says."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class _Coded(AmqpError):
    """An end with AMQP's reply code, where there is one."""

    def __init__(self, text: str, code: int | None = None) -> None:
        self.text, self.code = text, code
        super().__init__(text, code)

    def __str__(self) -> str:
        return self.text if self.code is None else f"{self.text} ({self.code})"


class ConnectionLost(_Coded):
    """The connection has ended; what was under way may or may not have happened.

    ``code`` is AMQP's reply code when one side closed it in words: 320 at the broker's shutdown, 501 to 505 when what
    came cannot be AMQP; None when it broke.
    """


class ChannelClosed(_Coded):
    """The channel has ended: ``code`` 404 for a queue or exchange that is missing, 403, 406, …; 200 by its owner."""


class ProtocolViolation(_Coded):
    """The other side sent what it may not; ``code`` is what it is told when the connection is closed for it."""


class MalformedProperties(AmqpError, ValueError):
    """The properties of one message cannot be read; the connection and other messages are none the worse."""


class Returned(_Coded):
    """The broker sent a mandatory message back: ``code`` 312, no queue is bound for it."""


class Nacked(AmqpError):
    """The broker refused a message: a queue is full and rejects, or the queue's leader is gone."""

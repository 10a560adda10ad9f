"""Every error FlowKit raises, one tree.

An error carries fields and builds its message once; the message says what was wrong, what was expected, what to do
next.

    FlowKitError
    ├── UsageError            the caller's mistake: arguments, configuration, a node file        (exit 2)
    │   ├── NodeNotFound      no file provides a node of that name
    │   ├── InvalidNode       a node file or a Node that cannot be used
    │   │   └── NoNode        a file with helpers only
    │   ├── InvalidPayload    inputs or outputs that JSON cannot carry
    │   └── InvalidSchedule   a cron line, time zone or name that no schedule can have
    ├── Unreachable           broker or store cannot be reached                                  (exit 3)
    │   ├── BrokerUnreachable
    │   ├── BrokerBlocked     the broker accepts no messages: an alarm of memory or disk
    │   └── StoreUnreachable
    ├── NotFound              a run, task or dead letter that does not exist                     (exit 4)
    ├── TimedOut              waiting took longer than asked for                                 (exit 5)
    ├── Refused               it is there, and says no                                           (exit 6)
    │   ├── Conflict          the same run id with another node or other inputs
    │   ├── StoreInUse        a second coordinator on one SQLite file
    │   ├── NameInUse         a second worker of the same name
    │   ├── WrongBroker       the broker belongs to another store
    │   ├── AccessRefused     the broker's permissions do not allow it
    │   └── QueueFull         a queue that is full and takes no more (a PublishError too)
    ├── RunFailed             a run that was waited for did not succeed                          (exit 1)
    ├── OutputsTooLarge       a run succeeded, and no message can carry its outputs              (exit 1)
    ├── Unreadable            a message that cannot be decoded
    ├── Unstorable            data that the database can never keep
    ├── PublishError          the broker did not take one message
    │   ├── Unroutable        no queue is bound for it
    │   ├── TooLarge          over the size limit
    │   └── NotSent           a transient message was dropped: the link is down
    └── Permanent             raised by authors: fail the task now, without retries
"""

from __future__ import annotations

from flowkit.addresses import mask


class FlowKitError(Exception):
    """The root of the tree: ``except FlowKitError`` catches all of ours and nothing else."""


class UsageError(FlowKitError):
    """The caller's mistake; the message says what to type instead."""


class NodeNotFound(UsageError):
    """No file provides a node of that name."""

    def __init__(self, name: str, where: str, present: list[str]) -> None:
        self.name, self.where, self.present = name, where, present
        there = f"it has {', '.join(present)}" if present else "it has no node files"
        super().__init__(
            f"node {name!r}: no file {name}.py in {where} ({there}). "
            f"Create it with 'flowkit new {name}', or point --nodes at the folder that has it."
        )


class InvalidNode(UsageError):
    """A node file, or a Node in it, that cannot be used."""


class NoNode(InvalidNode):
    """A file without any Node: it may hold helpers, and be all right as that."""


class InvalidPayload(UsageError):
    """A value that cannot travel as JSON; ``where`` is the path to it, such as ``outputs.image.size``."""

    def __init__(self, where: str, what: str) -> None:
        self.where, self.what = where, what
        super().__init__(f"{where}: {what}")


class InvalidSchedule(UsageError):
    """A part of a schedule that cannot be; ``what`` is a cron line, time zone or name."""

    def __init__(self, what: str, value: str, why: str) -> None:
        self.what, self.value, self.why = what, value, why
        super().__init__(f"{what} {value!r}: {why}")


class Unreachable(FlowKitError):
    """A service that FlowKit needs cannot be reached."""


class BrokerUnreachable(Unreachable):
    """The broker cannot be reached, or refuses the login."""

    def __init__(self, url: str, why: str, *, final: bool = False) -> None:
        # final: trying again cannot help (password, virtual host, no AMQP)
        self.url, self.why, self.final = mask(url), why, final
        super().__init__(
            f"broker {self.url}: {why}. Check the address (--broker or FLOWKIT_BROKER_URL), then 'flowkit doctor'."
        )


class BrokerBlocked(Unreachable):
    """The broker answers, and accepts no messages: it is low on memory or disk."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(
            f"broker {url} answers, and accepts no messages: {reason}. Free memory or disk on its machine, or raise "
            "its limit ('rabbitmqctl status' shows both), then try again."
        )


class StoreUnreachable(Unreachable):
    """The store cannot be reached or opened."""

    def __init__(
        self, url: str, why: str, *, final: bool = False, advice: str = "", misconfigured: bool = False
    ) -> None:
        # final: waiting cannot help, the file is no store or damaged
        self.url, self.why, self.final = mask(url), why, final
        self.misconfigured = misconfigured  # waiting helps only when a person sees to tables, rights or settings
        default = (
            "Bring back a copy from your backup, or name another store (--store or FLOWKIT_STORE_URL)"
            if final
            else "Check the address (--store or FLOWKIT_STORE_URL), then 'flowkit doctor'"
        )
        super().__init__(f"store {self.url}: {why.rstrip('.')}. {advice or default}.")


class Unstorable(FlowKitError):
    """Data that the database can never keep: too large for it, in a form that it does not know, or there already."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the store cannot keep this: {why}")


class NotFound(FlowKitError):
    """What was asked for does not exist."""

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(f"no {kind} {name!r}" + (f". {hint}" if hint else ""))


class TimedOut(FlowKitError):
    """Waiting took longer than asked for; what was waited for may still happen."""


class Refused(FlowKitError):
    """It is there, and says no."""


class Conflict(Refused):
    """A start whose run id is taken by a run of another node or with other inputs."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"run {run_id!r} exists already with another node or other inputs. "
            "Use a new id, or start it with the same node and inputs to get the run that is there."
        )


class StoreInUse(Refused):
    """A second coordinator on the same SQLite file."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"store {path}: another coordinator holds its lock, and SQLite takes one at a time. "
            "Stop the other one, or use PostgreSQL (--store postgresql://…) to run several."
        )


class NameInUse(Refused):
    """A second worker of the same name."""

    def __init__(self, name: str, where: str | None, patience: float) -> None:
        self.name = name
        who = (
            f"another worker has it{where}"
            if where is not None
            else f"another connection has held its queue for {patience:g} s"
        )
        super().__init__(
            f"worker name {name!r} is in use: {who}. Stop the other one, give this one another --name, or none."
        )


class WrongBroker(Refused):
    """The broker belongs to another store than the one in use."""


class AccessRefused(Refused):
    """The broker's permissions do not allow it (AMQP 403)."""


class RunFailed(FlowKitError):
    """A run that was waited for ended otherwise than succeeded."""

    def __init__(self, run_id: str, status: str, message: str) -> None:
        self.run_id, self.status, self.message = run_id, status, message
        said = message.rstrip(".") or "no message"
        super().__init__(f"run {run_id} {status}: {said}. See 'flowkit runs show {run_id}'.")


class OutputsTooLarge(FlowKitError):
    """A run succeeded, and its outputs are not in the message that says so: they are over the size limit."""

    def __init__(self, run_id: str, message: str) -> None:
        self.run_id = run_id
        why = f" ({message.rstrip('.')})" if message else ""
        super().__init__(
            f"run {run_id} succeeded, but its outputs are too large for a message{why}. The store has them: "
            f"'flowkit runs show {run_id} --json | jq .outputs'. Return the address of large data instead of the data."
        )


class Unreadable(FlowKitError):
    """A message that cannot be decoded; ``reason`` is a short word for the dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class PublishError(FlowKitError):
    """The broker did not take one message."""


class Unroutable(PublishError):
    """No queue is bound for the message, or its exchange does not exist."""

    def __init__(self, exchange: str, key: str) -> None:
        self.exchange, self.key = exchange, key
        super().__init__(f"exchange {exchange!r} has no queue for key {key!r}")


class TooLarge(PublishError):
    """The message is over the size limit."""

    def __init__(self, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(f"message of {size:,} bytes is over the limit of {limit:,} (setting max_message_bytes)")


class NotSent(PublishError):
    """A transient message was dropped because the link is down."""


class QueueFull(Refused, PublishError):
    """The broker refused a message (``basic.nack``): a queue that it was routed to has reached its length limit.

    A quorum queue without a leader refuses in the same way. Other queues of the same message may have it.
    """

    def __init__(self, exchange: str, key: str) -> None:
        self.exchange, self.key = exchange, key
        super().__init__(f"a queue for key {key!r} of exchange {exchange!r} is full and refuses messages")


class Permanent(FlowKitError):
    """Raise it in a node's ``main`` to fail the task at once, without retries."""

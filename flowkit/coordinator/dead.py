"""Dead letters: messages that cannot be processed are published with the reason, and read into the store.

What the coordinator dead-letters carries the header ``flowkit-reason``. Without it the broker put the message there: a
worker could not read it, or it was delivered too often, perhaps through no fault of its own. Such a one is taken as
newly arrived, once; what cannot be read is kept with the reason, and fails its task where it says whose it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from flowkit.broker.protocol import Broker, Delivery, Outgoing, PlainProperties
from flowkit.coordinator.commit import Committed
from flowkit.coordinator.isolation import Skipped, process_apart
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.reading import Reader
from flowkit.errors import FlowKitError, QueueFull, TooLarge, Unreadable, Unroutable, Unstorable
from flowkit.flow.changes import Forbid
from flowkit.flow.events import Event, Reported
from flowkit.store.protocol import DeadLetter, Transaction
from flowkit.wire import bounds, codec, names
from flowkit.wire.messages import DETAIL, REASON
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
MAX_DETAIL = 16 * 1024  # bytes of header: a traceback's worth
MAX_REASON = 100  # characters of a word that a stranger may have written
KEPT_OF_TOO_LARGE = 64 * 1024  # bytes of a body over the limit: enough to see what it is
MAX_PROPERTY = 255  # bytes of a text beside a body, as AMQP carries it


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message to be dead-lettered."""

    delivery: Delivery
    reason: str
    detail: str
    body: bytes | None = None  # when only a part of the message is meant
    run_id: str | None = None  # of that part, when it is known


async def bury(broker: Broker, topology: Topology, ledger: Ledger, rejected: Sequence[Rejected]) -> None:
    """Publish dead letters and wait for their confirms; the caller then acknowledges the originals.

    Those that no queue takes, because it is full or missing, are added to the store at once, which is where the queue's
    reader puts them: waiting for the queue would hold up the results and starts behind them.
    """
    if not rejected:
        return
    for one in rejected:
        logger.warning("message from %s is dead-lettered, %s: %s", one.delivery.queue, one.reason, one.detail[:300],
                       extra={"action": "dead_letter", "reason": one.reason, "queue": one.delivery.queue})  # fmt: skip
    letters = [_letter(topology, one) for one in rejected]
    why = ""
    while letters:
        verdicts = await broker.publish(letters)
        again: list[Outgoing] = []
        refused: list[Outgoing] = []
        for letter, verdict in zip(letters, verdicts, strict=True):
            if isinstance(verdict, TooLarge):
                again.append(_cut(letter))
            elif isinstance(verdict, QueueFull | Unroutable):
                refused.append(letter)
                why = "is full" if isinstance(verdict, QueueFull) else "is missing"
            elif verdict is not None:
                raise verdict
        if refused:
            logger.warning("queue %s %s: %d dead letters are added to the store directly", topology.dead.name, why,
                           len(refused), extra={"action": "dead_full", "queue": topology.dead.name})  # fmt: skip
            await ledger.transact(partial(_add_letters, refused))
        letters = again


def _add_letters(letters: Sequence[Outgoing], transaction: Transaction) -> None:
    """Add messages that the queue of dead letters did not accept, as its reader would have."""
    now = transaction.now()
    transaction.add_dead(
        [
            DeadLetter(
                reason=str(letter.headers[REASON]),
                detail=str(letter.headers[DETAIL]),
                queue=letter.key,
                body=letter.body,
                properties=_properties(letter.type, letter.correlation_id, letter.app_id),
                at=now,
                run_id=_run_of(letter.correlation_id),
            )
            for letter in letters
        ]
    )


def _properties(
    kind: str | None, run_id: str | None, app_id: str | None, message_id: str | None = None, user_id: str | None = None
) -> bytes:
    """The properties of a message as a dead letter keeps them."""
    values = {"type": kind, "message_id": message_id, "correlation_id": run_id, "app_id": app_id, "user_id": user_id}
    return codec.dumps({name: value for name, value in values.items() if value is not None})


def _run_of(run_id: str | None) -> str | None:
    return run_id if run_id is not None and names.is_run(run_id) else None


def _cut(letter: Outgoing) -> Outgoing:
    """What can be kept of a message that is larger than we may send ourselves."""
    detail = f"{letter.headers[DETAIL]} (the first {KEPT_OF_TOO_LARGE:,} of {len(letter.body):,} bytes are kept)"
    return letter._replace(body=letter.body[:KEPT_OF_TOO_LARGE], headers={**letter.headers, DETAIL: detail})


def _letter(topology: Topology, one: Rejected) -> Outgoing:
    delivery = one.delivery
    detail = one.detail.encode(errors="replace")[:MAX_DETAIL].decode(errors="ignore")
    return Outgoing(
        exchange=topology.name("dead"),
        key=delivery.queue[:255],
        body=delivery.body if one.body is None else one.body,
        type=_property(delivery.type) or "unknown",
        correlation_id=one.run_id or _property(delivery.correlation_id),
        app_id=_property(delivery.app_id),
        headers={REASON: one.reason, DETAIL: detail},
    )


def _property(text: str | None) -> str | None:
    """A text beside the body as it can be sent again: bytes that are no UTF-8 are read as four characters each."""
    return None if text is None else text.encode()[:MAX_PROPERTY].decode(errors="ignore")


class DeadLetters:
    """Reads ``flowkit.dead`` into the store, one message at a time on a connection of its own.

    What is given up may be large, and is in no hurry: starts and results shall not stand in line behind it.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, reader: Reader) -> None:
        self._topology, self._ledger, self._outbox, self._reader = topology, ledger, outbox, reader
        self._skipped = Skipped("dead letters", "dead_letter_failed")
        self.consumer = broker.consume(topology.dead, prefetch=1, own_connection=True)

    async def run(self) -> None:
        """For ever, until the consumer is stopped."""
        while batch := await self.consumer.receive(1):
            for how in (self._process, self._keep_plain):  # with its body alone, if that is what can be kept
                _, failed = await process_apart(batch, how)
                if not failed:
                    break
                self._skipped.add(f"{len(batch[0].body):,} bytes from {batch[0].key!r}", failed[0][1])
            await self.consumer.ack(batch)

    async def _process(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            if REASON in delivery.headers:
                reason, detail = str(delivery.headers[REASON]), str(delivery.headers.get(DETAIL, ""))
                await self._keep(delivery, bounds.cut(reason, MAX_REASON), bounds.cut(detail))
            elif "x-death" in delivery.headers:
                await self._take_again(delivery)
            else:  # neither we nor the broker put it there: it must not become a start by the back door
                await self._keep(delivery, "unexplained", "published to the dead letters without a reason")

    async def _keep_plain(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            plain = Delivery(delivery.queue, delivery.body, delivery.tag, key=delivery.key, properties=PlainProperties)
            await self._keep(
                plain, "rejected", "nothing of it but its body can be kept; the coordinator's log says why"
            )

    async def _take_again(self, delivery: Delivery) -> None:
        try:
            message = self._reader.read_dead(delivery)
        except Unreadable as error:
            await self._keep(delivery, error.reason, error.detail)
            return
        committed, failed = await self._ledger.commit_apart(message.events)
        for event, problem in failed:
            logger.error("dead letter cannot be applied", exc_info=problem, extra={"action": "dead_letter"})
            part = part_of(message.events, event)
            await self._keep(delivery, "rejected", f"{type(problem).__name__}: {problem}", part, event.run_id)
        for why, part in message.scraps:
            await self._keep(delivery, why.reason, why.detail, part)
        orphans = set[str]().union(*(one.orphans for one in committed))
        whole = any(part == delivery.body for _, part in message.scraps)  # it is kept, with all that is in it
        for event in message.events:
            if event.run_id in orphans and not whole:
                part = part_of(message.events, event)
                await self._keep(delivery, "unknown-run", f"no run {event.run_id}", part, event.run_id)
        for one in committed:
            await self._settle(delivery, one)
        logger.warning("message given up by queue %s was taken again", delivery.key,
                       extra={"action": "dead_letter_again", "queue": delivery.key})  # fmt: skip

    async def _settle(self, delivery: Delivery, committed: Committed) -> None:
        """Keep what the transaction refused, and deliver what follows from it."""
        for start in committed.conflicts:
            await self._keep(delivery, "conflict", why_conflict(start.run_id))
        for forbid in committed.forbidden:
            body = forbid.event.result.encode()
            await self._keep(delivery, "forbidden", why_forbidden(delivery, forbid), body, forbid.event.run_id)
        for reason in committed.refused.values():  # there is one command in a message
            await self._keep(delivery, "refused", reason)
        await self._outbox.deliver(committed)

    async def _keep(
        self, delivery: Delivery, reason: str, detail: str, part: bytes | None = None, run_id: str | None = None
    ) -> None:
        body = delivery.body if part is None else part
        run_id = run_id or delivery.correlation_id

        def work(transaction: Transaction) -> None:
            letter = DeadLetter(
                reason=reason,
                detail=detail,
                queue=delivery.key,
                body=body,
                properties=_properties(delivery.type, run_id, delivery.app_id, delivery.message_id, delivery.user_id),
                at=transaction.now(),
                run_id=_run_of(run_id),
            )
            transaction.add_dead([letter])

        await self._ledger.transact(work)


def why_conflict(run_id: str | None) -> str:
    """What is said of a start whose run is there already, and is another one."""
    return f"run {run_id!r} exists already with another node or other inputs"


def why_forbidden(delivery: Delivery, forbid: Forbid) -> str:
    """What is said of a result whose sender may not answer for its node."""
    who = "nobody (it has no user_id)" if delivery.user_id is None else f"login {delivery.user_id!r}"
    return f"{who} may not answer for node {forbid.node!r}: the setting 'users' of the coordinator says who may"


def part_of(events: Sequence[Event], event: Event) -> bytes | None:
    """What of a message is meant when it was an array of results: this one, as it was understood."""
    return event.result.encode() if len(events) > 1 and isinstance(event, Reported) else None


def reason_of(error: BaseException) -> str:
    """A short reason for a dead letter of an error."""
    if isinstance(error, Unreadable):
        return error.reason
    return "refused" if isinstance(error, FlowKitError) and not isinstance(error, Unstorable) else "rejected"

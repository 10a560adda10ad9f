"""Publish what is finished, all at once, and only then acknowledge it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flowkit.broker.protocol import Broker, Consumer, Delivery, Outgoing
from flowkit.errors import PublishError, QueueFull, TooLarge, Unroutable
from flowkit.wire.messages import Result, Status, join
from flowkit.worker.report import Report

_log = logging.getLogger(__name__)
_BATCH = 500  # results that are published with one wait for their confirms
_BUNDLE = 20  # results in a message: with more the broker's share of one is no longer worth saving
_BUNDLE_BYTES = 64 * 1024  # and no more than this, so that a large one travels as lightly as it did alone

Deliveries = Sequence[tuple[Consumer, Delivery]]


class Letter(NamedTuple):
    """A result to publish, and what follows.

    Args:
        report: what to publish.
        traceparent: of its task's message; it goes along in the headers.
        confirmed: called once when the broker has it; gives the deliveries to acknowledge.
        too_large: called when the broker takes no message of this size; gives another one in its place.
    """

    report: Report
    traceparent: str | None
    confirmed: Callable[[], Deliveries]
    too_large: Callable[[TooLarge], Letter] | None = None

    @property
    def kind(self) -> tuple[str, Status, str | None]:
        """What is the same in all that share a message."""
        return (self.report.task.node, self.report.status, self.traceparent)


@dataclass(slots=True)
class Bundle:
    """Letters that share a message."""

    letters: list[Letter] = field(default_factory=list)
    size: int = 0  # bytes of its body

    def add(self, letter: Letter) -> None:
        """Take one more in."""
        self.letters.append(letter)
        self.size += len(letter.report.body) + 1

    def message(self, exchange: str) -> Outgoing:
        """One result as it is, an array of several."""
        node, status, traceparent = self.letters[0].kind
        runs = {letter.report.task.run_id for letter in self.letters}
        return Outgoing(
            exchange,
            f"{node}.{status}",
            join([letter.report.body for letter in self.letters]),
            Result.TYPE,
            correlation_id=runs.pop() if len(runs) == 1 else None,
            app_id=node,
            headers={} if traceparent is None else {"traceparent": traceparent},
        )


class Reporter:
    """One loop that publishes letters and acknowledges what they answer.

    While a batch waits for its confirms the next one gathers. So a busy worker pays one wait for many results, and one
    message for several of them; an idle one publishes the only result it has at once, by itself.

    Args:
        broker: where to publish.
        exchange: of results.
        on_batch: called after each batch.
        backoff: seconds to wait when results are refused: no queue is bound for them, or it is full.
    """

    def __init__(
        self, broker: Broker, exchange: str, *, on_batch: Callable[[], None] = lambda: None, backoff: float = 0.5
    ) -> None:
        self._broker, self._exchange = broker, exchange
        self._on_batch, self._backoff = on_batch, backoff
        self._bundle_bytes = _BUNDLE_BYTES
        self._waiting: list[Letter] = []
        self._some = asyncio.Event()
        self._refusal: type[PublishError] | None = None  # why the last batch was refused, in part or whole

    @property
    def unroutable(self) -> bool:
        """Whether the last results had no queue, or no exchange."""
        return self._refusal is Unroutable

    def post(self, letter: Letter) -> None:
        """Publish this with the next batch."""
        self._waiting.append(letter)
        self._some.set()

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            PublishError: the broker refuses this worker's results for good (403).
        """
        while True:
            await self._some.wait()
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            bundles = self._bundles(batch)
            verdicts = await self._broker.publish([bundle.message(self._exchange) for bundle in bundles])
            again = await self._settle(bundles, verdicts)
            self._on_batch()
            self._waiting += again  # behind the others, which may go to another queue
            if not self._waiting:
                self._some.clear()
            elif again:
                await asyncio.sleep(self._backoff)

    def _bundles(self, letters: Iterable[Letter]) -> list[Bundle]:
        bundles: list[Bundle] = []
        growing: dict[tuple[str, Status, str | None], Bundle] = {}
        for letter in letters:
            kind = letter.kind
            bundle = growing.get(kind)
            if bundle is None or not self._fits(letter, bundle):
                bundle = growing[kind] = Bundle()
                bundles.append(bundle)
            bundle.add(letter)
        return bundles

    def _fits(self, letter: Letter, bundle: Bundle) -> bool:
        return len(bundle.letters) < _BUNDLE and bundle.size + len(letter.report.body) < self._bundle_bytes

    async def _settle(self, bundles: list[Bundle], verdicts: list[PublishError | None]) -> list[Letter]:
        """Acknowledge what is confirmed; returns what has to be published again."""
        again: list[Letter] = []
        refused: PublishError | None = None
        held: PublishError | None = None
        done: dict[Consumer, list[Delivery]] = {}
        for bundle, error in zip(bundles, verdicts, strict=True):
            if error is None:
                for letter in bundle.letters:
                    for consumer, delivery in letter.confirmed():
                        done.setdefault(consumer, []).append(delivery)
            elif isinstance(error, TooLarge) and self._make_smaller(bundle, error):
                pass
            elif isinstance(error, Unroutable | QueueFull):
                # A coordinator declares the queue, or makes room in it. What is finished must not get lost meanwhile.
                held = error
                again += bundle.letters
            else:
                refused = refused or error
        for consumer, deliveries in done.items():
            await consumer.ack(deliveries)
        self._note_refusal(held, len(again))
        if refused is not None:  # it ends the worker, but what is confirmed shall not run again for that
            raise refused
        return again

    def _note_refusal(self, why: PublishError | None, count: int) -> None:
        """Log that results are refused, for another reason than before, or accepted again."""
        before, self._refusal = self._refusal, None if why is None else type(why)
        if why is not None and before is not self._refusal:
            kept = "1 result is kept" if count == 1 else f"{count} results are kept"
            _log.warning("%s; %s, and published again until accepted", why, kept, extra={"action": "publish_again"})
        elif why is None and before is not None:
            _log.info("results are accepted again", extra={"action": "publish_accepted"})

    def _make_smaller(self, bundle: Bundle, error: TooLarge) -> bool:
        """Post what was in it again: in smaller bundles while it is one, then as what says that it was too large.

        Returns:
            whether there is something smaller.
        """
        if len(bundle.letters) > 1:
            self._bundle_bytes = min(self._bundle_bytes, bundle.size // 2)
            for letter in bundle.letters:
                self.post(letter)
            return True
        (letter,) = bundle.letters
        if letter.too_large is None:
            return False
        self.post(letter.too_large(error))
        return True

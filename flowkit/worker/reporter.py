"""Publish what is finished, all at once, and only then acknowledge it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowkit.broker.protocol import Broker, Consumer, Delivery, Outgoing
from flowkit.errors import PublishError, TooLarge, Unroutable

_log = logging.getLogger(__name__)
_BATCH = 256

Deliveries = Sequence[tuple[Consumer, Delivery]]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to publish, and what follows.

    Args:
        message: what to publish.
        confirmed: called once when the broker has it; gives the deliveries to acknowledge.
        too_large: called when the broker takes no message of this size; gives another one in its place.
    """

    message: Outgoing
    confirmed: Callable[[], Deliveries]
    too_large: Callable[[TooLarge], Letter] | None = None


class Reporter:
    """One loop that publishes letters and acknowledges what they answer.

    While a batch waits for its confirms the next one gathers, so a busy worker pays one wait for many results.

    Args:
        broker: where to publish.
        on_batch: called after each batch.
        backoff: seconds to wait when no queue is bound for results.
    """

    def __init__(self, broker: Broker, *, on_batch: Callable[[], None] = lambda: None, backoff: float = 0.5) -> None:
        self._broker, self._on_batch, self._backoff = broker, on_batch, backoff
        self._waiting: list[Letter] = []
        self._some = asyncio.Event()

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
            verdicts = await self._broker.publish([letter.message for letter in batch])
            again = await self._settle(batch, verdicts)
            self._on_batch()
            self._waiting = again + self._waiting
            if not self._waiting:
                self._some.clear()
            elif again:
                await asyncio.sleep(self._backoff)

    async def _settle(self, batch: list[Letter], verdicts: list[PublishError | None]) -> list[Letter]:
        """Acknowledge what is confirmed; returns what has to be published again."""
        again: list[Letter] = []
        done: dict[Consumer, list[Delivery]] = {}
        for letter, error in zip(batch, verdicts, strict=True):
            if error is None:
                for consumer, delivery in letter.confirmed():
                    done.setdefault(consumer, []).append(delivery)
            elif isinstance(error, TooLarge) and letter.too_large is not None:
                self.post(letter.too_large(error))
            elif isinstance(error, Unroutable):
                # Its queue is not there yet: a coordinator declares it. What is finished must not get lost meanwhile.
                _log.warning("%s; trying again", error, extra={"action": "publish_again"})
                again.append(letter)
            else:
                raise error
        for consumer, deliveries in done.items():
            await consumer.ack(deliveries)
        return again

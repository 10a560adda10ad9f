"""Commands that overtook the start of their run: both travel in queues of their own, so nothing keeps them in order.

Whoever begins a run and signals it at once has said both, and the broker has confirmed both. So a command of a run that
is not there is kept in hand for a while, unacknowledged, and tried again; only then is it refused.
"""

from __future__ import annotations

import asyncio

from flowkit.broker.protocol import Consumer, Delivery

LOOK = 0.25  # seconds between tries
MOST = 100  # deliveries in hand: well under the prefetch, so that those that make no sense hold up nobody


class Early:
    """The deliveries of one queue, and among them those that came too early, again and again.

    Args:
        consumer: of the queue.
        patience: seconds that one is kept in hand.
    """

    def __init__(self, consumer: Consumer, patience: float) -> None:
        self._consumer, self._patience = consumer, patience
        self._waiting: dict[int, tuple[Delivery, float]] = {}  # by tag; until when, by the loop's clock

    async def receive(self, limit: int) -> list[Delivery]:
        """What is there, at least one, after those that wait; nothing when the consumer is stopped."""
        if not self._waiting:
            return await self._consumer.receive(limit)
        try:
            async with asyncio.timeout(LOOK):
                fresh = await self._consumer.receive(limit)
        except TimeoutError:
            return self._in_hand()
        return [*self._in_hand(), *fresh] if fresh else []

    def keep(self, delivery: Delivery) -> bool:
        """Keep this in hand, to be received again; False when it has been for long enough, or there are too many."""
        now = asyncio.get_running_loop().time()
        if delivery.tag not in self._waiting and len(self._waiting) >= MOST:
            return False
        _, until = self._waiting.setdefault(delivery.tag, (delivery, now + self._patience))
        return until > now

    def settle(self, delivery: Delivery) -> None:
        """It waits no longer."""
        self._waiting.pop(delivery.tag, None)

    def _in_hand(self) -> list[Delivery]:
        return [delivery for delivery, _ in self._waiting.values()]

"""A Dramatiq worker as its documentation has it: it acknowledges late and confirms by itself."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["BROKER"], confirm_delivery=True))


def note(words: str) -> None:
    """Append a line, in one write."""
    record = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(record, f"{words}\n".encode())
    os.close(record)


@dramatiq.actor(max_retries=20)
def work(number: int) -> None:
    """Take 20 ms."""
    note(f"begin {number}")
    time.sleep(0.02)
    note(f"end {number}")

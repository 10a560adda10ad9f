"""A Celery worker with the settings that its documentation recommends where no task may be lost."""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery("safest", broker=os.environ["BROKER"].replace("amqp://", "pyamqp://"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_default_queue_type="quorum",
    task_default_delivery_mode="persistent",
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    task_ignore_result=True,
)


def note(words: str) -> None:
    """Append a line, in one write."""
    record = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(record, f"{words}\n".encode())
    os.close(record)


@app.task(name="work")
def work(number: int) -> None:
    """Take 20 ms."""
    note(f"begin {number}")
    time.sleep(0.02)
    note(f"end {number}")

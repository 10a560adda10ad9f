"""RabbitMQ: the only room that imports aio-pika, and aiormq below it.

Which of the two is used where, and why: docs/decisions/0006-aio-pika-and-its-underlay.md
"""

import logging

from flowkit.broker.rabbit.broker import RabbitBroker

__all__ = ["RabbitBroker"]

# They log every attempt to connect that fails and every channel the broker closes. The links here say the same once,
# with a stable name and without a traceback.
for library in ("aio_pika", "aiormq"):
    logging.getLogger(library).setLevel(logging.CRITICAL)

"""RabbitMQ. Messages go by ``flowkit.amqp``; what is asked and declared by aio-pika, and aiormq below it.

Only exclusive queues, which belong to the connection of their consumer, are declared there. This is the only room that
imports those two. Which is used where, and why: docs/decisions/0006 and 0018.
"""

import logging

from flowkit.broker.rabbit.broker import RabbitBroker

__all__ = ["RabbitBroker"]

# They log every attempt to connect that fails and every channel the broker closes. The links here say the same once,
# with a stable name and without a traceback.
for library in ("aio_pika", "aiormq"):
    logging.getLogger(library).setLevel(logging.CRITICAL)

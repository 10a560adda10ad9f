"""RabbitMQ: the only room that imports the AMQP client library.

The library is aiormq, the engine of aio-pika. aio-pika's own objects are left out: they know nothing of batches, and
its robust connection never recovers from a queue that came back with other arguments.
"""

import logging

from flowkit.broker.rabbit.broker import RabbitBroker

__all__ = ["RabbitBroker"]

# It logs every attempt to connect that fails and every channel the broker closes. The links here say the same once,
# with a stable name and without a traceback.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

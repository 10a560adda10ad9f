"""What a message costs here, in aiormq and in aio-pika, in CPU time of this process: ``python -m tests.amqp.cost``.

On a private RabbitMQ, 200-byte bodies, persistent, on a quorum queue, three alternating rounds, medians. Nothing is
judged: figures of a benchmark stand in docs/explanation/performance.md.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from statistics import median

import aio_pika
import aiormq
from pamqp import commands

from flowkit.amqp import Address, connect, encode_properties
from tests.amqp.asking import Collected
from tests.services.rabbitmq import RabbitMQ, install

COUNT, BATCH, ROUNDS = 10_000, 500, 3
BODY = b"x" * 200
Costs = tuple[float, float, float, float]  # microseconds of CPU, messages a second: published and confirmed, delivered


async def timed(work: Awaitable[object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    await work
    return (time.process_time() - cpu) / COUNT * 1e6, COUNT / (time.perf_counter() - wall)


async def ours(url: str, queue: str) -> Costs:
    connection = await connect(Address.parse(url), heartbeat=60, properties={})
    channel = await connection.channel(confirms=True)

    async def publish() -> None:
        for _ in range(COUNT // BATCH):
            ids = [uuid.uuid4().hex for _ in range(BATCH)]
            await channel.publish([
                ("", queue, True, one, encode_properties(content_type="application/json", delivery_mode=2,
                 message_id=one, correlation_id="run", message_type="flowkit.task", app_id="add"), BODY)
                for one in ids
            ])  # fmt: skip

    async def consume() -> None:
        collected = Collected()

        def take(arrived: list) -> None:
            for one in arrived:
                assert one.properties.message_type == "flowkit.task"
            channel.acknowledge(up_to=arrived[-1].tag, singles=())
            collected(arrived)

        await channel.qos(BATCH)
        await channel.consume(queue, take)
        await collected.expect(COUNT)

    costs = *await timed(publish()), *await timed(consume())
    await connection.close()
    return costs


async def by_aiormq(url: str, queue: str) -> Costs:
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    done, number = asyncio.Event(), 0

    async def publish() -> None:
        for _ in range(COUNT // BATCH):
            await asyncio.gather(*(
                channel.basic_publish(BODY, routing_key=queue, mandatory=True, properties=commands.Basic.Properties(
                    content_type="application/json", delivery_mode=2, message_id=uuid.uuid4().hex,
                    correlation_id="run", message_type="flowkit.task", app_id="add"))
                for _ in range(BATCH)
            ))  # fmt: skip

    async def take(message: aiormq.abc.DeliveredMessage) -> None:
        nonlocal number
        number += 1
        if number % 50 == 0:  # by prefix, as batches do it
            await channel.basic_ack(message.delivery_tag or 0, multiple=True, wait=False)
        if number == COUNT:
            done.set()

    async def consume() -> None:
        await channel.basic_qos(prefetch_count=BATCH)
        await channel.basic_consume(queue, take)
        await done.wait()

    costs = *await timed(publish()), *await timed(consume())
    await connection.close()
    return costs


async def by_aio_pika(url: str, queue: str) -> Costs:
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    done, number = asyncio.Event(), 0

    async def publish() -> None:
        for _ in range(COUNT // BATCH):
            await asyncio.gather(*(
                channel.default_exchange.publish(aio_pika.Message(
                    BODY, content_type="application/json", delivery_mode=2, message_id=uuid.uuid4().hex,
                    correlation_id="run", type="flowkit.task", app_id="add"), queue)
                for _ in range(BATCH)
            ))  # fmt: skip

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal number
        number += 1
        await message.ack()
        if number == COUNT:
            done.set()

    async def consume() -> None:
        await channel.set_qos(BATCH)
        await (await channel.get_queue(queue)).consume(take)
        await done.wait()

    costs = *await timed(publish()), *await timed(consume())
    await connection.close()
    return costs


CASES: dict[str, Callable[[str, str], Awaitable[Costs]]] = {
    "flowkit.amqp": ours, "aiormq": by_aiormq, "aio-pika": by_aio_pika,
}  # fmt: skip


async def measure(url: str) -> None:
    costs: dict[str, list[Costs]] = {case: [] for case in CASES}
    asking = await connect(Address.parse(url), heartbeat=60, properties={})
    channel = await asking.channel()
    for _ in range(ROUNDS):
        for case, run in CASES.items():
            queue = f"cost-{uuid.uuid4().hex}"
            declare = commands.Queue.Declare(queue=queue, durable=True, arguments={"x-queue-type": "quorum"})
            await channel.call(declare)
            costs[case].append(await run(url, queue))
            await channel.call(commands.Queue.Delete(queue=queue))
    await asking.close()
    print(f"{'':14}{'published + confirmed':>30}{'delivered + acknowledged':>30}")
    for case, rounds in costs.items():
        figures = [median(column) for column in zip(*rounds, strict=True)]
        both = [f"{cpu:.1f} µs {rate:9,.0f}/s" for cpu, rate in (figures[:2], figures[2:])]
        print(f"{case:14}{both[0]:>30}{both[1]:>30}")


def main() -> None:
    if not install():
        sys.exit("RabbitMQ is not installed here")
    broker = RabbitMQ()
    try:
        broker.start()
        asyncio.run(measure(broker.url))
    finally:
        broker.close()


if __name__ == "__main__":
    main()

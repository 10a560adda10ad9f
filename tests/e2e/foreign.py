"""A starter and a worker without FlowKit: plain AMQP and the least of the contract."""

from __future__ import annotations

import json

import aio_pika


async def start(url: str, namespace: str, node: str, inputs: dict, run_id: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"{namespace}.starts")
        body = json.dumps({"node": node, "inputs": inputs, "run_id": run_id}).encode()
        await exchange.publish(aio_pika.Message(body, delivery_mode=2), routing_key=node)


async def work(url: str, namespace: str, node: str, count: int) -> None:
    """Double ``n`` for ``count`` tasks and name nobody downstream."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        results = await channel.get_exchange(f"{namespace}.results")
        queue = await channel.get_queue(f"{namespace}.tasks.{node}")
        async with queue.iterator() as deliveries:
            async for delivery in deliveries:
                task = json.loads(delivery.body)
                result = {
                    "task_id": task["task_id"],
                    "run_id": task["run_id"],
                    "nodes": [],
                    "outputs": {"doubled": 2 * task["inputs"]["n"]},
                    "message": "doubled",
                }
                message = aio_pika.Message(json.dumps(result).encode(), delivery_mode=2)
                await results.publish(message, routing_key=f"{node}.succeeded")
                await delivery.ack()
                count -= 1
                if count == 0:
                    return

import asyncio

from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)


async def process(item):
    await asyncio.sleep(0)
    return item * 2


async def main():
    inputs = node.get_inputs()
    node_id = node.get_id()
    await logger.info(f"Node {node_id} started")

    items = inputs.get("items", [])
    if not items:
        await logger.warning("No items to process")
        return [], {}, "Validation failed"

    results = []
    for index, item in enumerate(items):
        await logger.debug(f"Processing item {index + 1} of {len(items)}")
        results.append(await process(item))

    await logger.info(f"Processed {len(results)} items")
    await logger.flush()
    return ["report", "store"], {"results": results, "count": len(results)}, "Processing complete"


node.register_main(main)

if __name__ == "__main__":
    node.run()

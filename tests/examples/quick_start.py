from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)


async def main():
    inputs = node.get_inputs()
    result = inputs["a"] + inputs["b"]
    await logger.info(f"Result: {result}")
    return [], {"result": result}, "Success"


node.register_main(main)
node.run()

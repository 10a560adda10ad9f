from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)


async def main():
    inputs = node.get_inputs()
    await logger.log_with_context("INFO", "User logged in", {"user_id": inputs["user_id"], "ip": "192.0.2.1"})
    await logger.log_with_context("WARNING", "No context at all")
    try:
        raise ValueError("something went wrong")
    except ValueError:
        await logger.error("An error occurred", include_traceback=True)
    await logger.flush()
    return [], {"logged": True}, "Logged"


node.register_main(main)
node.run()

from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)


async def main():
    inputs = node.get_inputs()
    try:
        result = inputs["a"] / inputs["b"]
    except ZeroDivisionError as e:
        await logger.error(f"Division failed: {e}", include_traceback=True)
        return ["error_handler"], {"error": str(e)}, "Division by zero"
    except KeyError as e:
        await logger.error(f"Missing input: {e}")
        raise
    return [], {"result": result}, "Success"


node.register_main(main)
node.run()

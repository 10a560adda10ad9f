"""What becomes of a claim for expenses that nobody approved in time: the head of the house is told."""

from typing import Any, Never

from flowkit import Logger, Node

node = Node("escalate")
logger = Logger(node)


@node.main
async def main() -> tuple[list[Never], dict[str, Any], str]:
    claim = node.get_inputs()
    await logger.warning(f"nobody approved the {claim['amount']:,.2f} of {claim['who']} in time")
    return [], {"paid": 0, "escalated_to": "head of the house"}, "escalated"


node.run()

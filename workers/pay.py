"""Last step of a claim for expenses: pay it, or say who refused.

It gets the claim, and after a `Wait` also `signal`: the input of the signal that ended it.
"""

from typing import Any, Never

from pydantic import BaseModel

from flowkit import Logger, Node

node = Node("pay")
logger = Logger(node)


class Approval(BaseModel):
    approved: bool
    by: str = "somebody"


class Approved(BaseModel):
    who: str
    amount: float
    signal: Approval = Approval(approved=True, by="the rule for small claims")


@node.main
async def main(claim: Approved) -> tuple[list[Never], dict[str, Any], str]:
    if not claim.signal.approved:
        return [], {"paid": 0, "refused_by": claim.signal.by}, f"refused by {claim.signal.by}"
    # A task may run twice (its worker died, say): the id stays the same, so a bank that knows it pays once.
    reference = str(node.get_id())
    await logger.log_with_context("info", f"paying {claim.amount:,.2f} to {claim.who}", {"reference": reference})
    return [], {"paid": claim.amount, "approved_by": claim.signal.by}, "paid"


node.run()

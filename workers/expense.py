"""First step of a claim for expenses: small ones are paid at once, the others wait for somebody who approves.

    flowkit start expense -F who=ann -F amount=480 -F for=train
    flowkit runs signal RUN approval -F approved=true -F by=bob

Nobody within `approve_within` seconds (three days): the claim goes to `escalate`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from flowkit import Logger, Node, Wait

SMALL = 50
DAY = 86_400

node = Node("expense", next=["pay", "escalate"])
logger = Logger(node)


class Claim(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    who: str = Field(min_length=1)
    amount: float = Field(gt=0)
    purpose: str = Field("", alias="for")
    approve_within: float = Field(3 * DAY, gt=0)


class Claimed(BaseModel):
    who: str
    amount: float
    purpose: str = Field(serialization_alias="for")


@node.main
async def main(claim: Claim) -> tuple[list[Literal["pay"] | Wait], Claimed, str]:
    outputs = Claimed(who=claim.who, amount=claim.amount, purpose=claim.purpose)
    if claim.amount <= SMALL:
        return ["pay"], outputs, "small enough to be paid at once"
    await logger.info(f"{claim.who} claims {claim.amount:,.2f}: waiting for an approval")
    wait = Wait("approval", then="pay", timeout=claim.approve_within, on_timeout="escalate")
    return [wait], outputs, "to be approved"


node.run()

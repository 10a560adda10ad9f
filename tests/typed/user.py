"""A program as a user types it: every documented use of the public names. Checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential

from flowkit import Client, Gather, Logger, Node, Permanent, Send, Wait
from flowkit.client import Run, SyncClient, SyncRun
from flowkit.errors import Conflict, FlowKitError, RunFailed, TimedOut
from flowkit.testing import ROUGH, Call, Faults, SimulatedRun, Simulation

node = Node(
    timeout=30,
    concurrency=4,
    retry=retry_if_exception_type(OSError),
    stop=stop_after_attempt(3),
    wait=wait_exponential(max=10),
    on_error="apologize",
    queue_timeout=3600,
    limit=5,
    rate="100/s",
    key="customer_id",
    next=["resize", "publish"],
)
log = Logger(node)


@node.main
async def plain() -> tuple[list[str], dict[str, Any], str]:
    inputs = node.get_inputs()
    await log.info(f"run {node.get_id()} has {inputs['path']}")
    return ["publish"], {"path": inputs["path"]}, "resized"


class Order(BaseModel):
    customer: str
    amounts: list[float]


charge = Node("charge")


@charge.main
async def with_model(order: Order) -> tuple[list[Send | Gather | Wait], dict[str, float], str]:
    if not order.amounts:
        raise Permanent("nothing to pay")
    sends = [Send("book", {"amount": amount}) for amount in order.amounts]
    names: Sequence[str] = ("audit", "notify")
    return (
        [
            Gather(sends, "total"),
            Gather(
                sends, then=Send("total", {"of": order.customer}), return_exceptions=True, max_concurrency=3, timeout=60
            ),
            Gather(names, "done"),
            Gather(("audit", Send("notify")), then="done"),
            Wait("approved", then="ship", timeout=86_400, on_timeout=Send("remind", delay=5)),
            Send("mail", detached=True),
        ],
        {"sum": sum(order.amounts)},
        "",
    )


async def registered() -> tuple[list[str], dict[str, Any], str]:
    return [], {}, ""


Node("later").register_main(registered)
node.run()
decorated: tuple[list[str], dict[str, Any], str] = asyncio.run(plain())  # a decorated main keeps its type


async def program() -> dict[str, Any]:
    async with Client("amqp://guest:guest@localhost/", namespace="shop", patience=5) as client:
        run: Run = await client.start(
            "charge", {"customer": "c", "amounts": [1.0]}, id="order-1", tags={"of": "c"}, delay=1
        )
        many: list[Run] = await client.start_many("charge", [{"customer": "c", "amounts": []}])
        await many[0].cancel(grace=5)
        await client.run("order-1").signal("approved", {"by": "ann"})
        await run.pause()
        await run.resume()
        again = await (await run.rerun(inputs={"customer": "d"})).outputs(timeout=10)
        try:
            return await run.outputs(timeout=60)
        except (RunFailed, TimedOut, Conflict) as error:
            await log.warning(f"{error}")
        except FlowKitError:
            raise
        return again


def synchronous() -> dict[str, Any]:
    client: SyncClient
    with Client.sync("amqp://guest:guest@localhost/") as client:
        run: SyncRun = client.start("charge", {"customer": "c"})
        return run.outputs(timeout=60)


def test_in_simulation() -> None:
    with Simulation("workers", seed=7, faults=ROUGH) as sim:
        run: SimulatedRun = sim.start("charge", {"customer": "c"})
        sim.advance(days=1)
        sim.rest()
        calls: list[Call] = sim.calls("charge")
        assert sim.ran("charge") == len(calls)
        assert run.outputs()["sum"] == 0
    with Simulation("workers", faults=Faults(crash_at=3)):
        pass

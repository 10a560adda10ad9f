"""What a type checker has to refuse: every statement from SETUP on is wrong. Checked by mypy and pyright, never run."""

from flowkit import Client, Gather, Node, Send, Wait
from flowkit.client import Run, SyncClient
from flowkit.testing import Simulation

node = Node("right")
SETUP = "the statements below are wrong"

from flowkit import Sennd
from flowkit.client import Clint
from flowkit.testing import Simulashun

Node(time_out=3)
Node(limit="five")
node.mian
Send("a", input={})
Send("a", [1])
Gather(["a"], than="b")
Gather([1], "b")
Gather(["a"], "b", max_concurency=3)
Wait("a", next="b")
Wait("a", then=5)
Client(adress="amqp://localhost/")
Client.sync("amqp://localhost/").strat("a")
Simulation("workers", sed=7)


async def program(client: Client, run: Run, other: SyncClient) -> None:
    await client.start("a", {}, tag={})
    await client.start(5)
    await client.begin("a")
    await run.outputs(timeout="5")
    await run.result()
    other.start("a", dely=3)

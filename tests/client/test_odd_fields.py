"""Each field of what a client hears of the ends of runs with odd values: it goes on."""

from __future__ import annotations

from flowkit.client import Client
from flowkit.wire import bounds, codec
from flowkit.wire import messages as wire
from tests.wire.odd import Sample, encode


async def test_whatever_stands_in_a_field_of_the_end_of_a_run_the_client_goes_on(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", {"a": 1})
        for one in Sample(wire.RunEnded).odd():
            await coordinator.publish(encode(one.message), "succeeded.add")
        (start,) = await coordinator.starts(1)
        await coordinator.end(start, outputs={"n": 1})
        assert await run.outputs(timeout=10) == {"n": 1}


async def test_the_end_of_a_run_with_long_texts_from_an_older_coordinator_is_heard(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", {"a": 1})
        (start,) = await coordinator.starts(1)
        told = {"run_id": start.run_id, "node": "add", "status": "succeeded", "outputs": {"n": 1}}
        await coordinator.publish(codec.dumps(told | {"message": "m" * 70_000}), "succeeded.add")
        ended = await run.end(timeout=10)
        assert (ended.outputs, ended.message) == ({"n": 1}, bounds.cut("m" * 70_000))

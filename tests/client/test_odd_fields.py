"""Each field of what a client hears of the ends of runs with odd values: it goes on."""

from __future__ import annotations

from flowkit.client import Client
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

"""A client used before it is open, after it is closed, in another event loop or thread: an error, never a hang."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from flowkit.broker.memory import MemoryBroker
from flowkit.client import Client, Run, SyncClient, SyncRun
from flowkit.errors import FlowKitError, UsageError
from tests.client.coordinator import Coordinator

USES: list[Callable[[Client, Run], Awaitable[object]]] = [
    lambda client, _: client.start("add"),
    lambda client, _: client.start_many("add", [{}]),
    lambda client, _: client.replay([1]),
    lambda client, _: client.run("r2").cancel(),
    lambda _, run: run.outputs(),
    lambda _, run: run.end(),
    lambda _, run: run.signal("go"),
    lambda _, run: run.cancel(),
    lambda _, run: run.pause(),
    lambda _, run: run.rerun(),
]
SYNC_USES: list[Callable[[SyncClient, SyncRun], object]] = [
    lambda client, _: client.start("add"),
    lambda client, _: client.start_many("add", [{}]),
    lambda client, _: client.run("r2"),
    lambda client, _: client.replay([1]),
    lambda _, run: run.outputs(),
    lambda _, run: run.signal("go"),
    lambda _, run: run.cancel(),
    lambda _, run: run.resume(),
    lambda _, run: run.rerun(),
]


def serving(client: SyncClient) -> Coordinator:
    """A coordinator on the broker in memory of this client, in its thread."""
    thread = client.thread()

    async def prepare() -> Coordinator:
        coordinator = Coordinator(thread.client._broker)
        await coordinator.declare()
        return coordinator

    return thread.run(prepare())


def drop(holder: list[object]) -> None:
    """Let go of what nobody else has, and collect it."""
    holder.clear()
    gc.collect()


async def end_all(coordinator: Coordinator, count: int, **words: object) -> None:
    for start in await coordinator.starts(count):
        await coordinator.end(start, **words)


@pytest.mark.parametrize("use", USES)
async def test_after_its_block_a_client_says_that_it_is_closed(url, coordinator, use):
    async with Client(url) as client:
        run = await client.start("add", id="r1")
    assert not run.ended
    with pytest.raises(UsageError, match="this client is closed"):
        await use(client, run)


async def test_outputs_that_are_known_are_there_after_the_block(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add")
        await end_all(coordinator, 1, outputs={"x": 1})
        await run.end(timeout=5)
    assert run.ended
    assert await run.outputs() == {"x": 1}


async def test_who_waits_for_a_run_when_its_client_is_closed_is_told(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add")
        waiting = asyncio.create_task(run.outputs())
        await coordinator.starts(1)
    with pytest.raises(UsageError, match="this client is closed"):
        await waiting


async def test_who_begins_a_run_when_its_client_is_closed_is_told(monkeypatch, url):
    async def forbidden(self, parts):
        return list(parts)

    monkeypatch.setattr(MemoryBroker, "declare", forbidden)
    async with Client(url, listen=False) as client:
        starting = asyncio.create_task(client.start("add"))
        await asyncio.sleep(0)
    with pytest.raises(UsageError, match="this client is closed"):
        await starting


async def test_a_client_is_closed_once_and_can_be_opened_again(url, coordinator):
    client = Client(url)
    async with client:
        with pytest.raises(UsageError, match="is open already"):
            await client.__aenter__()
        old = await client.start("add", id="r1")
    await client.__aexit__(None, None, None)
    async with client:
        run = await client.start("add", id="r1")
        await end_all(coordinator, 2, outputs={"x": 1})
        assert await run.outputs(timeout=5) == {"x": 1}
        with pytest.raises(UsageError, match="this client is closed"):
            await old.outputs()


@pytest.mark.parametrize("use", USES)
async def test_another_event_loop_is_an_error(url, coordinator, use):
    async with Client(url) as client:
        run = await client.start("add", id="r1")

        async def elsewhere() -> None:
            with pytest.raises(UsageError, match="is another one than the running one"):
                await use(client, run)
            with pytest.raises(UsageError, match="is another one than the running one"):
                await client.__aexit__(None, None, None)

        with ThreadPoolExecutor(1) as other:
            await asyncio.get_running_loop().run_in_executor(other, lambda: asyncio.run(elsewhere()))
        await end_all(coordinator, 1)
        assert await run.outputs(timeout=5) == {}


def test_a_loop_that_has_ended_is_an_error_and_known_outputs_are_given():
    async def begin(name: str) -> tuple[Client, Run, Run]:
        client = Client(broker=MemoryBroker.named(name), listen=True)
        await client.__aenter__()
        coordinator = Coordinator(MemoryBroker.named(name))
        await coordinator.declare()
        known, unknown = await client.start("add"), await client.start("add")
        await coordinator.end((await coordinator.starts(2))[0], outputs={"x": 1})
        await known.end(timeout=5)
        return client, known, unknown

    client, known, unknown = asyncio.run(begin(uuid4().hex))

    async def later() -> None:
        assert await known.outputs() == {"x": 1}
        with pytest.raises(FlowKitError):
            await unknown.outputs()
        with pytest.raises(UsageError, match="event loop that this client was opened in has ended"):
            await client.start("add")
        await client.__aexit__(None, None, None)  # nothing is left to close

    asyncio.run(later())


async def test_a_client_that_nobody_closes_is_warned_of(url):
    client = Client(url, listen=False)
    await client.__aenter__()
    broker = client._broker
    holder = [client]
    del client
    with pytest.warns(ResourceWarning, match="a Client was not closed"):
        drop(holder)
    await broker.close()


@pytest.mark.parametrize("use", SYNC_USES)
def test_a_closed_synchronous_client_says_so(use):
    with Client.sync(f"memory:{uuid4().hex}") as client:
        serving(client)
        run = client.start("add", id="r1")
    with pytest.raises(UsageError, match="this client is closed"):
        use(client, run)


def test_a_synchronous_client_that_was_never_open_says_so():
    with pytest.raises(UsageError, match=r"with Client\.sync"):
        Client.sync("memory:never").start("add")


def test_outputs_that_are_known_are_there_after_a_synchronous_block():
    with Client.sync(f"memory:{uuid4().hex}") as client:
        coordinator = serving(client)
        run = client.start("add")
        client.thread().run(end_all(coordinator, 1, outputs={"x": 1}))
        assert run.outputs(timeout=5) == {"x": 1}
    assert run.outputs() == {"x": 1}


def test_a_thread_that_waits_when_another_one_closes_the_client_is_told():
    with ThreadPoolExecutor(1) as other, Client.sync(f"memory:{uuid4().hex}") as client:
        coordinator = serving(client)
        run = client.start("add")
        client.thread().run(coordinator.starts(1))
        waiting = other.submit(run.outputs)
    with pytest.raises(UsageError, match="this client is closed"):
        waiting.result(timeout=5)


def test_a_synchronous_client_is_closed_once_and_can_be_opened_again():
    threads = threading.active_count()
    client = Client.sync(f"memory:{uuid4().hex}")
    with client, pytest.raises(UsageError, match="is open already"):
        client.__enter__()
    client.__exit__(None, None, None)
    with client:
        serving(client)
        assert client.start("add", id="r1").id == "r1"
    assert threading.active_count() == threads


def test_a_synchronous_client_that_nobody_closes_is_warned_of_and_ends_its_thread():
    client = Client.sync(f"memory:{uuid4().hex}").__enter__()
    thread = client.thread()._thread
    holder = [client]
    del client
    with pytest.warns(ResourceWarning, match="a SyncClient was not closed"):
        drop(holder)
    thread.join(5)
    assert not thread.is_alive()


def test_a_client_that_cannot_be_opened_leaves_no_thread():
    threads = threading.active_count()
    with pytest.raises(FlowKitError), Client.sync("amqp://127.0.0.1:1/", patience=0.05):
        pass
    assert threading.active_count() == threads

"""A program whose children use its client: ``python -m tests.client.forking WAY URL NAMESPACE``.

It prints a JSON line: the outputs that the children got, then those that the parent got afterwards.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable

from flowkit.client import Client, SyncClient, SyncRun
from flowkit.errors import UsageError

CHILDREN = 3
WAIT = 20  # seconds


def use(client: SyncClient, run: SyncRun) -> list[object]:
    """What a child does: wait for the parent's run, and for one of its own."""
    return [run.outputs(timeout=WAIT), client.start("add", {"n": 2}).outputs(timeout=WAIT)]


def fork(work: Callable[[], object], *, leave: Callable[[int], object] = sys.exit) -> object:
    """What ``work`` returns in a child of ``os.fork``.

    Args:
        work: done in the child.
        leave: ends the child: ``sys.exit`` leaves all blocks that it is in, ``os._exit`` none.
    """
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except BaseException:
            said = traceback.format_exc()
        os.write(theirs, json.dumps(said).encode())
        leave(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = json.loads(pipe.read() or '"nothing"')
    assert os.waitpid(pid, 0)[1] == 0, "the child ended badly"
    return said


def by_os_fork(client: SyncClient, run: SyncRun) -> list[object]:
    """Children of ``os.fork``, while other threads of the parent use the client."""
    ended = threading.Event()

    def busy() -> None:
        while not ended.is_set():
            client.start("add", {"n": 0}).outputs(timeout=WAIT)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        return [fork(lambda: use(client, run)) for _ in range(CHILDREN)]
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def by_multiprocessing(client: SyncClient, run: SyncRun) -> list[object]:
    """Children of a pool that forks, as Celery's are."""
    global _shared  # noqa: PLW0603
    _shared = client, run
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(_use_shared, range(CHILDREN))


def _use_shared(_: int) -> list[object]:
    return use(*_shared)


async def _async_client(url: str, namespace: str) -> list[object]:
    """A child cannot use an async client of its parent, and leaving its block does the parent no harm."""
    async with Client(url, namespace=namespace) as client:
        run = await client.start("add", {"n": 1})

        def child() -> str:
            async def tries() -> list[str]:
                said = []
                for attempt in (client.start("add"), run.outputs(), run.cancel()):
                    try:
                        await attempt
                    except UsageError as error:
                        said.append(str(error))
                await client.__aexit__(None, None, None)
                return said

            return " ".join(_without_loop(tries))

        said = fork_and_leave(child)
        return [
            said,
            await run.outputs(timeout=WAIT),
            await (await client.start("add", {"n": 3})).outputs(timeout=WAIT),
        ]


def _without_loop(tries: Callable[[], object]) -> list[str]:
    return asyncio.run(tries())  # type: ignore[arg-type]


def fork_and_leave(work: Callable[[], object]) -> object:
    """As ``fork``, from within a running event loop, which the child must not go on with."""
    return fork(work, leave=os._exit)


def main() -> None:
    """Run one way."""
    way, url, namespace = sys.argv[1:]
    if way == "async":
        print(json.dumps(asyncio.run(_async_client(url, namespace))))
        return
    with Client.sync(url, namespace=namespace) as client:
        run = client.start("add", {"n": 1})
        children = {"fork": by_os_fork, "multiprocessing": by_multiprocessing}[way](client, run)
        parent = [run.outputs(timeout=WAIT), client.start("add", {"n": 3}).outputs(timeout=WAIT)]
        print(json.dumps([children, parent]))


if __name__ == "__main__":
    main()

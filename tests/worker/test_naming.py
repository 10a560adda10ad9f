"""Who has a name: one worker at a time."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

from flowkit.broker.memory import MemoryBroker
from flowkit.errors import AccessRefused, NameInUse
from flowkit.wire import messages as wire
from flowkit.worker import Worker
from flowkit.worker.naming import host_name

from .tasks import define


async def fine():
    return [], {}, "fine"


def second_worker(house, **options) -> Worker:
    """One with the name of the first, on another connection."""
    return Worker(house.mine, house.topology, [define(fine)], **({"name": "w", "heartbeat": 3600} | options))


async def announce_until(house, ended: asyncio.Task, **words) -> None:
    """Announce a worker of that name again and again, as its process would."""
    told = wire.Worker(**({"worker": "w"} | words))
    while not ended.done():
        await house.raw("workers", ("", told.encode(), told.TYPE))
        await asyncio.sleep(0)


async def test_a_second_worker_of_a_name_ends_when_the_first_one_is_heard(house, caplog):
    caplog.set_level(logging.WARNING, "flowkit")
    async with house.worker(define(fine)):
        running = asyncio.create_task(second_worker(house).run())
        await announce_until(house, running, host="elsewhere", pid=17, started_at=1_764_000_000)
        says = r"'w' is in use: another worker has it \(process 17 on elsewhere, since 2025-11-24 16:00:00 UTC\)"
        with pytest.raises(NameInUse, match=says):
            await running
    assert "another connection holds its queue; waiting up to 50 s" in caplog.text


async def test_an_older_worker_does_not_say_where_it_is(house):
    async with house.worker(define(fine)):
        running = asyncio.create_task(second_worker(house).run())
        await announce_until(house, running)
        with pytest.raises(NameInUse, match=r"is in use: another worker has it\. Stop the other one"):
            await running


@pytest.mark.parametrize("words", [{"stopping": True}, {"host": host_name(), "pid": os.getpid()}, {"worker": "other"}])
async def test_who_is_no_other_living_worker_of_that_name_is_not_taken_for_one(house, words):
    async with house.worker(define(fine)):
        running = asyncio.create_task(second_worker(house, name_patience=0.1).run())
        await announce_until(house, running, **words)
        with pytest.raises(NameInUse, match=r"another connection has held its queue for 0\.1 s"):
            await running


async def test_a_name_whose_connection_ends_is_waited_for(house):
    async with house.worker(define(fine)):
        second = second_worker(house)
        running = asyncio.create_task(second.run())
        await asyncio.sleep(0)
        house.broker.go_down()
        await asyncio.wait_for(second.ready(), 5)
        second.force()
        await running
        house.broker.come_back()


async def test_a_worker_that_waits_for_its_name_ends_at_the_first_signal(house, caplog):
    async with house.worker(define(fine)):
        second = second_worker(house)
        running = asyncio.create_task(second.run())
        while "holds its queue" not in caplog.text:
            await asyncio.sleep(0)
        assert await second.stop() is False
        await running


async def test_a_worker_that_may_not_hear_the_others_waits_for_the_name(house, monkeypatch):
    consume = MemoryBroker.consume

    def refused(self, queue, **words):
        consumer = consume(self, queue, **words)
        if queue.bindings[0].exchange == house.topology.name("workers") and queue.exclusive:

            async def receive(limit):
                raise AccessRefused("access to exchange refused")

            consumer.receive = receive
        return consumer

    monkeypatch.setattr(MemoryBroker, "consume", refused)
    async with house.worker(define(fine)):
        with pytest.raises(NameInUse, match=r"another connection has held its queue for 0\.05 s"):
            await second_worker(house, name_patience=0.05).run()


async def test_an_announcement_says_where_its_worker_is(house):
    async with house.worker(define(fine)):
        told = await house.announcement()
    assert (told.host, told.pid) == (host_name(), os.getpid())
    assert told.started_at is not None

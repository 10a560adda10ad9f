"""Who cancelled an execution is known by the worker, and never read from what author code changes."""

import asyncio
import contextlib
import time

import pytest
import tenacity
from aio_pika.exceptions import ChannelNotFoundEntity

from flowkit.broker.rabbit.connection import guard
from flowkit.broker.rabbit.faults import LinkLost
from flowkit.errors import Permanent
from flowkit.wire.messages import Result as Message
from flowkit.wire.messages import Status, decode
from flowkit.worker.execute import execute, execute_apart
from flowkit.worker.stage import OwnThread, SameLoop

from .tasks import Lines, define, task

RETRY = {
    "retry": tenacity.retry_if_exception_type((OSError, ExceptionGroup, TimeoutError)),
    "wait": tenacity.wait_fixed(7),
}


async def run(main, **options):
    """As a script runs it: in an asyncio task of its own."""
    report = await execute_apart(task(), define(main, **options), sink=Lines(), worker="w")
    return decode(Message, report.body)


async def fail(error):
    await asyncio.sleep(0)
    raise error


async def fail_in_group(error):
    """On Python 3.11 and 3.12 this leaves ``cancelling()`` at 1: the group waits already when its child fails."""
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(error))


def cancel_own_task():
    """As a library does that bounds something by ``cancel()`` and does not call ``uncancel()``."""
    asyncio.current_task().cancel()


async def be_cancelled():
    """Receive one, and leave the count as it is."""
    cancel_own_task()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


async def old_timeout(seconds):
    """As async_timeout before version 4.0.3."""
    me = asyncio.current_task()
    asyncio.get_running_loop().call_later(seconds, me.cancel)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise TimeoutError("of a library") from None


async def test_an_error_in_a_group_keeps_type_message_and_traceback_and_is_retried():
    async def main():
        await fail_in_group(OSError("no route"))

    result = await run(main, **RETRY)
    assert (result.status, result.retry_in, result.error.type) == (Status.RETRY, 7, "ExceptionGroup")
    assert "unhandled errors in a TaskGroup (1 sub-exception)" in result.error.message
    assert "OSError: no route" in result.error.traceback
    assert (await run(main)).status is Status.FAILED, "without a policy"


async def test_the_message_of_a_group_names_the_first_errors_in_it():
    async def main():
        inner = ExceptionGroup("inner", [KeyError("a"), ValueError()])
        raise ExceptionGroup("outer", [OSError("no route"), inner, TypeError("the fourth")])

    result = await run(main)
    said = "outer (3 sub-exceptions): OSError: no route; KeyError: 'a'; ValueError"
    assert (result.error.message, result.message) == (said, f"ExceptionGroup: {said}")


async def test_a_permanent_error_in_a_group_ends_the_retries():
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_in_group(Permanent("no such customer")))

    result = await run(main, **RETRY)
    assert (result.status, result.error.type) == (Status.FAILED, "ExceptionGroup")
    assert result.error.message.endswith(": Permanent: no such customer")


async def test_an_error_after_a_group_whose_errors_were_handled():
    async def main():
        try:
            await fail_in_group(OSError("handled"))
        except* OSError:
            pass
        raise ValueError("later")

    result = await run(main)
    assert (result.error.type, result.error.message) == ("ValueError", "later")
    assert "in main" in result.error.traceback


async def test_a_success_after_a_group_whose_errors_were_handled():
    async def main():
        try:
            await fail_in_group(OSError("handled"))
        except* OSError:
            pass
        return [], {"x": 1}, "went on"

    assert (await run(main)).outputs == {"x": 1}


async def test_a_library_that_cancels_the_current_task_and_does_not_take_it_back():
    async def main():
        await old_timeout(0)

    result = await run(main, **RETRY)
    assert (result.status, result.error.type, result.error.message) == (Status.RETRY, "TimeoutError", "of a library")


@pytest.mark.parametrize("undone", [False, True], ids=["cancel", "cancel and uncancel"])
async def test_a_cancellation_that_main_does_not_receive_any_more_takes_nothing_away(undone):
    async def errs():
        cancel_own_task()
        if undone:
            asyncio.current_task().uncancel()
        raise OSError("in the last step")

    async def returns():
        cancel_own_task()
        if undone:
            asyncio.current_task().uncancel()
        return [], {"x": 1}, ""

    async def always(state):
        await asyncio.sleep(0)
        return True

    result = await run(errs, retry=always, wait=tenacity.wait_fixed(7))
    assert (result.status, result.error.message) == (Status.RETRY, "in the last step")
    assert (await run(returns)).outputs == {"x": 1}


async def test_too_many_uncancels_are_no_cancellation_and_hide_none():
    async def main():
        for _ in range(3):
            asyncio.current_task().uncancel()
        raise OSError("plain")

    assert (await run(main)).error.message == "plain"


@pytest.mark.parametrize("said", ["", "mine"])
async def test_a_main_that_ends_as_cancelled_by_itself(said):
    async def main():
        raise asyncio.CancelledError(said)

    result = await run(main, **RETRY)
    assert (result.status, result.error.type) == (Status.FAILED, "CancelledError")
    assert result.error.message == (said or "main cancelled itself")


async def test_a_child_task_that_was_cancelled_fails_main_and_nothing_more():
    async def main():
        child = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(child.cancel)
        await child

    assert (await run(main)).error.type == "CancelledError"


async def test_the_timeout_counts_after_a_group_whose_errors_were_handled():
    async def main():
        try:
            await fail_in_group(OSError("handled"))
        except* OSError:
            pass
        await asyncio.Event().wait()

    result = await run(main, timeout=0.5, **RETRY)
    assert (result.status, result.error.type) == (Status.RETRY, "TimeoutError")
    assert result.error.message == "no result within 0.5 s (timeout of node 'work')"
    assert "await asyncio.Event().wait()" in result.error.traceback


async def test_the_timeout_counts_in_a_group_and_beside_one_of_the_authors():
    async def in_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())

    async def in_timeout():
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    async def takes_back():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            raise

    for main in (in_group, in_timeout, takes_back):
        assert (await run(main, timeout=0.01)).error.message.startswith("no result within 0.01 s")


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "goes on and raises"])
async def test_a_main_that_swallows_its_timeout_has_no_result_any_more(returns):
    async def main():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not returns:
                raise OSError("of its own") from None
        return [], {"x": 1}, "too late"

    result = await run(main, timeout=0.01, **RETRY)
    assert result.status is Status.RETRY
    assert result.error.message == (
        "no result within 0.01 s (timeout of node 'work'); main returned later: it blocked, "
        "or went on when it was cancelled" if returns else "of its own"
    )  # fmt: skip


async def test_code_that_blocks_beyond_its_timeout_has_no_result_any_more():
    async def main():
        time.sleep(0.02)
        return [], {"x": 1}, "too late"

    result = await run(main, timeout=0.001, **RETRY)
    assert (result.status, result.error.type) == (Status.RETRY, "TimeoutError")
    assert "it blocked" in result.error.message


async def test_the_callers_cancellation_goes_through_and_asks_no_policy():
    running, asked = asyncio.Event(), []

    async def main():
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("while cleaning up")

    def retry(state):
        asked.append(state)
        return True

    cancelled = False
    job = asyncio.create_task(
        execute(task(), define(main, retry=retry), sink=Lines(), worker="w", cancelled=lambda: cancelled)
    )
    await running.wait()
    cancelled = True
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert asked == []


# In a worker


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
async def test_a_worker_reports_the_error_of_a_group_and_lets_its_policy_decide(house, stage):
    async def main():
        await fail_in_group(OSError("no route"))

    async with house.worker(define(main, **RETRY), stage=stage()):
        await house.send(task())
        result = await house.result()
        assert (result.status, result.error.type, result.retry_in) == (Status.RETRY, "ExceptionGroup", 7)
        assert "OSError: no route" in result.error.traceback


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
@pytest.mark.parametrize("swallows", [False, True])
async def test_a_worker_cancels_a_main_in_a_group_though_its_count_was_changed(house, stage, swallows):
    begun, ended = asyncio.Event(), asyncio.Event()
    here = asyncio.get_running_loop()

    async def main():
        await be_cancelled()
        asyncio.current_task().uncancel()
        here.call_soon_threadsafe(begun.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
        except asyncio.CancelledError:
            if not swallows:
                raise
        finally:
            here.call_soon_threadsafe(ended.set)
        return [], {}, "swallowed"

    async with house.worker(define(main), stage=stage()) as worker:
        mine = task()
        await house.send(mine)
        await begun.wait()
        await house.control(kind="cancel", run_id=mine.run_id)
        assert (await house.result()).status is Status.RETURNED
        await ended.wait()
        assert await worker.stop() is False


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
async def test_a_node_that_cancels_all_tasks_of_its_loop_fails_those_and_ends_no_worker(house, stage):
    begun = asyncio.Event()
    here = asyncio.get_running_loop()

    async def waits():
        here.call_soon_threadsafe(begun.set)
        await asyncio.Event().wait()

    async def cancels():
        for other in asyncio.all_tasks():
            if other.get_name().startswith("node waits"):
                other.cancel()
        return [], {}, "did it"

    async with house.worker(define(waits, "waits"), define(cancels, "cancels"), stage=stage()):
        await house.send(task("waits"))
        await begun.wait()
        await house.send(task("cancels"))
        results = {result.node: result for result in await house.results(2)}
        assert (results["waits"].status, results["waits"].error.type) == (Status.FAILED, "CancelledError")
        assert results["cancels"].status is Status.SUCCEEDED


# The guard around the AMQP library


async def test_a_cancellation_that_nobody_sent_is_a_lost_link_whatever_count_was_left_before():
    async def closes_after_a_cancellation():
        await be_cancelled()
        with pytest.raises(LinkLost), guard():
            raise asyncio.CancelledError  # as aiormq does for a black-holed connection

    await asyncio.create_task(closes_after_a_cancellation())


async def test_a_cancellation_that_somebody_sent_passes_the_guard():
    inside = asyncio.Event()

    async def asks():
        await be_cancelled()
        with guard():
            inside.set()
            await asyncio.Event().wait()

    asking = asyncio.create_task(asks())
    await inside.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("instead", [LinkLost("ended with it"), RuntimeError("closed"), ChannelNotFoundEntity("404")])
async def test_a_cancellation_that_the_library_replaces_by_an_error_passes_the_guard(instead):
    inside = asyncio.Event()

    async def asks():
        with guard():
            try:
                inside.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise instead from None  # as aiormq does when the connection ends at that moment

    asking = asyncio.create_task(asks())
    await inside.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

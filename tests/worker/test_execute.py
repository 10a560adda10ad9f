"""One task and one Definition make one result, whatever the author's code does."""

import asyncio
import math
import sys
import threading
from datetime import date, datetime

import orjson
import pytest
import tenacity
from pydantic import BaseModel, ConfigDict

from flowkit import Gather, Permanent, Send, Wait
from flowkit.flow.limits import Limits
from flowkit.wire.messages import Result, Status, decode
from flowkit.worker.current import current
from flowkit.worker.execute import execute
from flowkit.worker.failure import MAX_TEXT

from .tasks import Lines, define, task


async def run(main, *, of=None, limits=None, clock=lambda: 1000.0, **options) -> Result:
    report = await execute(
        of or task(), define(main, **options), sink=Lines(), worker="w", clock=clock, limits=limits or Limits()
    )
    result = decode(Result, report.body)
    assert orjson.loads(result.encode()) == orjson.loads(report.body), "as the model itself would write it"
    return result


async def test_texts_over_their_bounds_are_cut_and_say_so():
    done = await run(returning(([], {}, "m" * 70_000)))
    assert done.message.endswith(" characters left out)")
    assert len(done.message) <= 65_536
    failed = await run(raising(type("E" * 300, (Exception,), {})("x")))
    assert failed.error.type == "E" * 173 + "… (127 characters left out)"


def returning(value):
    async def main():
        return value

    return main


def raising(error):
    async def main():
        raise error

    return main


async def test_a_success_carries_all_that_the_contract_has():
    of = task(attempt=3)
    result = await run(returning((["next", Send("other", {"x": 1}, delay=2)], {"a": [1, None]}, "fine")), of=of)
    assert result.status is Status.SUCCEEDED
    assert (result.task_id, result.run_id, result.node, result.attempt) == (of.task_id, of.run_id, "work", 3)
    assert (result.outputs, result.message, result.worker) == ({"a": [1, None]}, "fine", "w")
    assert (result.started_at, result.finished_at) == (1000, 1000)
    assert orjson.loads(result.encode())["nodes"][1]["send"]["node"] == "other"


@pytest.mark.parametrize("value", [([], {}, ""), [[], {}, ""], ((), {}, "x"), ([], {"deep": {"er": ("t",)}}, "x")])
async def test_good_returns(value):
    assert (await run(returning(value))).status is Status.SUCCEEDED


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "main returned None; expected (nodes, outputs, message)"),
        (3, "main returned a value of type int"),
        (([], {}), "main returned 2 values"),
        (([], {}, "m", 1), "main returned 4 values"),
        (("add", {}, ""), "nodes is the text 'add'; expected a list of names: ['add']"),
        ((Send("add"), {}, ""), "nodes is a Send; expected a list"),
        ((Wait("go", then="a"), {}, ""), "nodes is a Wait; expected a list"),
        ((None, {}, ""), "nodes is None"),
        (({"a"}, {}, ""), "nodes is a value of type set"),
        (([3], {}, ""), "nodes[0] is a value of type int"),
        (([None], {}, ""), "nodes[0] is None"),
        (
            ([{"send": {"node": "a"}}], {}, ""),
            "nodes[0] is a value of type dict; expected a node name, Send, Gather or Wait",
        ),
        ((["a", "b c"], {}, ""), "nodes[1]: 'b c' is no node name"),
        ((["../../x"], {}, ""), "nodes[0]: '../../x' is no node name"),
        ((["a\n"], {}, ""), "is no node name"),
        (([], None, ""), "outputs is None; expected a dict"),
        (([], [1], ""), "outputs is a value of type list"),
        (([], {}, None), "message is None; expected text"),
        (([], {}, b"x"), "message is a value of type bytes"),
        (([], {}, "\ud800"), "message: text with a lone surrogate"),
        (([], {"a": {"b": math.nan}}, ""), "outputs.a.b: nan is no JSON number"),
        (([], {"a": [0, -math.inf]}, ""), "outputs.a[1]: -inf"),
        (([], {"n": 2**64}, ""), "outputs.n: an integer over 64 bits"),
        (([], {"when": datetime(2026, 1, 1)}, ""), "outputs.when: datetime is no JSON type"),  # noqa: DTZ001
        (([], {"raw": b"x"}, ""), "outputs.raw: bytes"),
        (([], {"s": {1}}, ""), "outputs.s: set"),
        (([], {1: 2}, ""), "outputs: key 1 is int"),
        (([], {"t": "\udfff"}, ""), "outputs.t: text with a lone surrogate"),
        (([Send("a", {"x": {"y": math.nan}})], {}, ""), "nodes[0].inputs.x.y: nan"),
        (([Gather(["a", Send("b", {"f": print})], then="c")], {}, ""), "nodes[0].sends[1].inputs.f"),
        (([Gather(["a"], then=Send("c", {"z": b""}))], {}, ""), "nodes[0].then.inputs.z: bytes"),
        (([Wait("go", then=Send("c", {"z": b""}))], {}, ""), "nodes[0].then.inputs.z"),
        (([Wait("go", then="a", on_timeout=Send("c", {"z": b""}))], {}, ""), "nodes[0].on_timeout.inputs.z"),
    ],
)
async def test_a_wrong_return_fails_the_task_and_says_what_was_expected(value, said):
    result = await run(returning(value), retry=tenacity.retry_if_exception_type())
    assert result.status is Status.FAILED, "at once: the same code returns the same again"
    assert said in result.error.message
    assert result.error.message in result.message
    assert result.outputs == {}


async def test_nesting_over_the_limit():
    deep: dict = {}
    inner = deep
    for _ in range(300):
        inner["x"] = inner = {}
    assert "nested deeper than 190" in (await run(returning(([], deep, "")))).message
    deep["x"] = deep  # and a cycle
    assert "nested deeper than 190" in (await run(returning(([], deep, "")))).message


async def test_limits_are_named():
    small = Limits(max_gather=2, max_tasks=3, max_message_bytes=2_000)
    gather = Gather(["a", "b", "c"], then="d")
    assert (
        "Gather of 3 sends is over the limit of 2 (max_gather)"
        in (await run(returning(([gather], {}, "")), limits=small)).message
    )
    assert (
        "4 items, over the limit of 3 (max_tasks)" in (await run(returning((["a"] * 4, {}, "")), limits=small)).message
    )
    result = await run(returning(([], {"x": "y" * 3_000}, "")), limits=small)
    assert result.error.type == "TooLarge"
    assert "over the limit of 2,000 (setting max_message_bytes)" in result.message


async def test_outputs_are_frozen_by_encoding_them():
    outputs = {"list": [1]}
    report = await execute(task(), define(returning(([], outputs, ""))), sink=Lines(), worker="w")
    outputs["list"].append(2)
    assert orjson.loads(report.body)["outputs"] == {"list": [1]}


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class Loud(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("boom"), "ValueError", "boom"),
        (KeyError("a"), "KeyError", "'a'"),
        (Permanent("never"), "Permanent", "never"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (GeneratorExit(), "GeneratorExit", ""),
        (asyncio.CancelledError("mine"), "CancelledError", "mine"),
        (TimeoutError("mine"), "TimeoutError", "mine"),
        (Loud("base"), "Loud", "base"),
        (Unprintable(), "Unprintable", "(its str() raised RuntimeError)"),
        (ValueError("\ud800"), "ValueError", "?"),
        (
            BaseExceptionGroup("both", [ValueError(), Loud()]),
            "BaseExceptionGroup",
            "both (2 sub-exceptions): ValueError; Loud",
        ),
    ],
)
async def test_every_exception_becomes_a_failed_result(error, kind, message):
    result = await run(raising(error))
    assert result.status is Status.FAILED
    assert (result.error.type, result.error.message) == (kind, message)
    assert result.error.traceback.startswith("Traceback") or "Exception Group" in result.error.traceback
    assert "flowkit/worker/" not in result.error.traceback
    assert asyncio.current_task().cancelling() == 0


async def test_stop_iteration_is_what_python_makes_of_it():
    assert (await run(raising(StopIteration(1)))).error.type == "RuntimeError"


async def test_a_traceback_begins_at_the_authors_frame_and_is_capped():
    def deeper(n):
        if not n:
            raise ValueError("x" * 100_000)
        try:
            deeper(n - 1)
        except ValueError as error:
            raise RuntimeError(f"level {n} " + "y" * 1_000) from error

    async def main():
        deeper(100)

    result = await run(main)
    assert len(result.error.traceback.encode()) <= MAX_TEXT
    assert "bytes left out" in result.error.traceback
    assert result.error.traceback.endswith("y" * 10)
    result = await run(raising(ValueError("ü" * 100_000)))
    assert len(result.error.message.encode()) <= MAX_TEXT
    assert len(result.message) <= 1_000


async def test_recursion_without_end_fails_the_task_only():
    async def main():
        return await main()

    assert (await run(main)).error.type == "RecursionError"


async def test_timeout_says_where_it_was_waiting():
    async def somewhere():
        await asyncio.Event().wait()

    async def main():
        await somewhere()

    result = await run(main, timeout=0.01)
    assert result.error.type == "TimeoutError"
    assert result.error.message == "no result within 0.01 s (timeout of node 'work')"
    assert "await somewhere()" in result.error.traceback


async def test_a_timeout_that_main_cleans_up_after_with_an_error_of_its_own():
    async def main():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    assert (await run(main, timeout=0.01)).error.type == "ValueError"


async def test_a_dict_changed_by_a_thread_meanwhile_is_a_failure_at_worst():
    outputs = {str(n): n for n in range(1_000)}
    stop = threading.Event()

    def change():
        n = 0
        while not stop.is_set():
            outputs[f"new{n % 50}"] = n
            outputs.pop(f"new{(n + 25) % 50}", None)
            n += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            assert (await run(returning(([], outputs, "")))).status in (Status.SUCCEEDED, Status.FAILED)
    finally:
        stop.set()
        thread.join()


async def test_a_task_that_came_too_late_is_not_run():
    result = await run(raising(AssertionError("ran")), of=task(start_by=990), retry=tenacity.retry_always)
    assert result.status is Status.FAILED
    assert result.error.type == "QueueTimeout"
    assert "10.0 s over (queue_timeout of node 'work')" in result.message
    assert (await run(returning(([], {}, "")), of=task(start_by=1000))).status is Status.SUCCEEDED


# Typed inputs


class Image(BaseModel):
    model_config = ConfigDict(strict=True)

    url: str
    taken: date


async def test_typed_inputs_are_read_as_json():
    async def main(image: Image):
        return [], {"year": image.taken.year}, image.url

    result = await run(main, of=task(inputs={"url": "u", "taken": "2026-01-31"}))
    assert (result.outputs, result.message) == ({"year": 2026}, "u")


async def test_inputs_that_do_not_fit_fail_at_once_with_pydantics_explanation():
    async def main(image: Image):
        raise AssertionError("ran")

    result = await run(main, of=task(inputs={"url": 3}), retry=tenacity.retry_always)
    assert result.status is Status.FAILED
    assert result.error.type == "InvalidInputs"
    assert result.error.message == (
        "inputs do not fit node 'work': url: Input should be a valid string; taken: Field required"
    )


async def test_a_validator_that_raises():
    class Evil(BaseModel):
        def __init__(self, **data):
            super().__init__(**data)

        @classmethod
        def model_validate_json(cls, *args, **kwargs):
            sys.exit(1)

    async def main(evil: Evil):
        raise AssertionError("ran")

    assert (await run(main)).error.type == "SystemExit"


# Retries


async def test_without_a_policy_there_is_one_attempt():
    assert (await run(raising(OSError()))).status is Status.FAILED


@pytest.mark.parametrize(
    ("options", "error", "tries", "retry_in"),
    [
        ({"retry": tenacity.retry_if_exception_type(OSError)}, OSError(), 1, 0),
        ({"retry": tenacity.retry_if_exception_type(OSError)}, ValueError(), 1, None),
        ({"retry": tenacity.retry_if_exception_type(OSError)}, OSError(), 2, 0),
        ({"retry": tenacity.retry_if_exception_type(OSError)}, OSError(), 3, None),
        ({"wait": tenacity.wait_fixed(7)}, ValueError(), 2, 7),
        ({"wait": tenacity.wait_fixed(7)}, ValueError(), 3, None),
        ({"stop": tenacity.stop_after_attempt(5)}, ValueError(), 4, 0),
        ({"stop": tenacity.stop_after_attempt(5)}, ValueError(), 5, None),
        ({"stop": tenacity.stop_never, "wait": tenacity.wait_exponential(2)}, ValueError(), 4, 16),
        ({"wait": tenacity.wait_fixed(1)}, Permanent("no"), 1, None),
        ({"wait": tenacity.wait_fixed(1)}, SystemExit(), 1, None),
        ({"retry": tenacity.retry_if_exception_type(SystemExit)}, SystemExit(), 1, 0),
        ({"retry": tenacity.retry_never}, tenacity.TryAgain(), 1, 0),
        ({"stop": tenacity.stop_after_delay(50)}, ValueError(), 9, 0),
        ({"stop": tenacity.stop_after_delay(20)}, ValueError(), 1, None),
        ({"stop": tenacity.stop_before_delay(50), "wait": tenacity.wait_fixed(30)}, ValueError(), 1, None),
        ({"stop": lambda state: state.attempt_number >= 2}, ValueError(), 1, 0),
        ({"wait": lambda state: state.attempt_number * 10}, ValueError(), 2, 20),
    ],
)
async def test_the_policy_decides(options, error, tries, retry_in):
    of = task(attempt=tries + 4, tries=tries, first_started_at=970)
    result = await run(raising(error), of=of, **options)
    assert result.retry_in == retry_in
    assert result.status is (Status.FAILED if retry_in is None else Status.RETRY)
    assert result.attempt == tries + 4
    assert result.error.type == type(error).__name__


async def test_asynchronous_policies():
    async def again(state):
        return True

    assert (await run(raising(OSError()), retry=again)).status is Status.RETRY


async def test_a_timeout_may_be_tried_again():
    async def main():
        await asyncio.Event().wait()

    result = await run(main, timeout=0.01, retry=tenacity.retry_if_exception_type(TimeoutError))
    assert result.status is Status.RETRY


@pytest.mark.parametrize("broken", [{"retry": lambda _: 1 / 0}, {"stop": lambda _: 1 / 0}, {"wait": lambda _: 1 / 0}])
async def test_a_policy_that_raises_fails_the_task_and_says_so(broken):
    result = await run(raising(OSError("first")), **broken)
    assert result.status is Status.FAILED
    assert result.error.type == "OSError"
    assert result.error.message == "first; then its retry policy raised ZeroDivisionError: division by zero"


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "soon", None])
async def test_a_wait_that_is_no_time(seconds):
    result = await run(raising(OSError("first")), wait=lambda _: seconds)
    assert result.status is Status.FAILED
    assert "then its retry policy raised" in result.message


# The current task


async def test_inputs_are_a_fresh_copy_each_time():
    of = task(inputs={"list": [1], "n": {"m": 2}})

    async def main():
        from flowkit.worker.current import copy_inputs

        first = copy_inputs(current.get().task)
        first["list"].append(2)
        first["n"]["m"] = 3
        return [], copy_inputs(current.get().task), ""

    assert (await run(main, of=of)).outputs == {"list": [1], "n": {"m": 2}}
    assert current.get() is None

"""Messages about a task that nobody can read: the task fails and says why, and no run waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.broker import Delivery
from flowkit.store.views import Queries
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.coordinator.house import House

DEEP = '{"a":' * 300 + "1" + "}" * 300  # far over what orjson writes
RUN = {"task_id": "0b6f6a1c-4c8e-4f0e-8a8a-5b7f3c1d2e4f", "run_id": "r", "node": "a"}


async def rejected(house: House, node: str, count: int = 1) -> list[Delivery]:
    """A worker that can read nothing of this node's queue."""
    found: list[Delivery] = []
    while len(found) < count:
        batch = await house.consumer(node).receive(count - len(found))
        await house.consumer(node).reject(batch)
        found += batch
    return found


def message(task: wire.Task, inputs: str, **more: Any) -> bytes:
    words = task.model_dump(include={"task_id", "run_id", "node", "attempt"}) | more
    return codec.dumps(words)[:-1] + b',"inputs":' + inputs.encode() + b"}"


async def dead(house: House, count: int = 1) -> list[Any]:
    def look(queries: Queries) -> Any:
        found = queries.dead(limit=9)
        return found if len(found) >= count else None

    return await house.until(look, f"{count} dead letters")


async def error(house: House, run_id: str = "r") -> dict[str, Any]:
    return codec.loads((await house.run_ended(run_id)).error)


@pytest.mark.parametrize(
    ("inputs", "reason", "said"),
    [(DEEP, "too-deep", "nested deeper than 200 levels"), ("[1]", "invalid", "inputs: Input should be a valid dict")],
)
async def test_a_task_that_no_worker_can_read_has_failed(house, inputs, reason, said):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.publish("tasks", "a", message(task, inputs))
        (delivery,) = await rejected(house, "a")
        told = await error(house)
        assert (told["type"], told["node"]) == ("UnreadableTask", "a")
        assert told["message"].startswith("no worker can read the message of this task: ")
        assert said in told["message"]
        (letter,) = await dead(house)
        assert (letter.reason, letter.queue, letter.body) == (reason, "flowkit.tasks.a", delivery.body), "and is kept"


async def test_its_on_error_goes_on(house):
    async with house.coordinator():
        told = {"worker": "w", "nodes": [{"name": "a", "on_error": "rescue"}]}
        await house.publish("workers", "", told, durable=False)
        await house.until(lambda queries: queries.workers(seen_since=0), "the worker")
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.publish("tasks", "a", message(task, DEEP))
        await rejected(house, "a")
        (rescue,) = await house.tasks("rescue")
        assert rescue.inputs["error"]["type"] == "UnreadableTask"
        await house.answer(rescue)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_an_old_attempt_a_stranger_and_a_newer_version_fail_nothing(house):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task, status="returned", attempt=1)
        (again,) = await house.tasks("a")
        await house.publish("tasks", "a", message(task, DEEP))
        await house.publish("tasks", "a", message(task, DEEP, run_id="nobody"))
        await house.publish("tasks", "a", message(again, DEEP, task_id=RUN["task_id"]))
        await house.publish("tasks", "a", message(again, "{}", v=2))
        await house.publish("tasks", "a", message(again, DEEP, node="b"))
        await rejected(house, "a", 5)
        letters = await dead(house, 5)
        assert sorted(letter.reason for letter in letters) == [
            "too-deep", "too-deep", "too-deep", "unknown-version", "wrong-node",
        ]  # fmt: skip
        await house.answer(again)
        assert (await house.run_ended("r")).status == "succeeded"


@pytest.mark.parametrize(
    ("outputs", "said"),
    [(DEEP, "nested deeper than 200 levels"), ('{"a":' * 195 + "1" + "}" * 195, "outputs: nested deeper than 190")],
)
async def test_a_result_that_is_too_deep_fails_its_task(house, outputs, said):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        body = f'{{"task_id": "{task.task_id}", "run_id": "r", "nodes": ["b"], "outputs": {outputs}}}'
        await house.publish("results", "a.succeeded", body.encode())
        told = await error(house)
        assert told["type"] == "InvalidResult"
        assert said in told["message"]


NOT_KEPT = [
    ("18446744073709551616", "an integer over 64 bits does not fit JSON here; send it as text"),
    ("-9223372036854775809", "an integer over 64 bits does not fit JSON here; send it as text"),
    ("1e400", "1e400 is more than a 64-bit float can hold; send it as text"),
    ("NaN", "NaN is no JSON number; leave it out or send null"),
    ('{"x": 1, "x": 2}', "key 'x' stands there twice, and only one of its values can be kept"),
]


@pytest.mark.parametrize(("value", "said"), NOT_KEPT, ids=[value for value, _ in NOT_KEPT])
async def test_a_result_that_cannot_be_kept_fails_its_task_and_no_other_of_its_message(house, value, said):
    async with house.coordinator():
        await house.start("a", "r1")
        await house.start("a", "r2")
        first, second = await house.tasks("a", 2)
        alone = f'{{"task_id": "{first.task_id}", "run_id": "{first.run_id}", "outputs": {{"n": [{value}]}}}}'
        fine = f'{{"task_id": "{second.task_id}", "run_id": "{second.run_id}", "outputs": {{"n": 1e3}}}}'
        body = f'[{alone}, {fine}, {{"odd": {value}}}]'.encode()
        await house.publish("results", "a.succeeded", body)
        told = await error(house, first.run_id)
        assert (told["type"], told["message"]) == (
            "InvalidResult",
            f"the result does not fit the contract: outputs.n[0]: {said}",
        )
        assert codec.loads((await house.run_ended(second.run_id)).outputs) == {"n": 1000.0}
        (letter,) = await dead(house)
        assert (letter.detail, letter.body) == (f"odd: {said}", body), "kept with all that stood around it"


async def test_a_key_twice_in_the_result_itself_fails_its_task(house):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        body = f'{{"task_id": "{task.task_id}", "run_id": "r", "outputs": {{}}, "outputs": {{"n": 1}}}}'
        await house.publish("results", "a.succeeded", body.encode())
        assert "key 'outputs' stands there twice" in (await error(house))["message"]


@pytest.mark.parametrize(("value", "said"), NOT_KEPT, ids=[value for value, _ in NOT_KEPT])
@pytest.mark.parametrize("exchange", ["starts", "commands"])
async def test_what_is_asked_with_what_cannot_be_kept_is_kept_with_the_reason(house, exchange, value, said):
    bodies = {
        "starts": f'{{"node": "a", "run_id": "r", "inputs": {{"n": {value}}}}}',
        "commands": f'{{"id": "{RUN["task_id"]}", "kind": "signal", "run_id": "r", "input": {{"n": {value}}}}}',
    }
    async with house.coordinator():
        await house.publish(exchange, "a", bodies[exchange].encode())
        (letter,) = await dead(house)
        assert letter.detail == f"{'inputs' if exchange == 'starts' else 'input'}.n: {said}"
        assert letter.body == bodies[exchange].encode()


@pytest.mark.parametrize(("value", "said"), NOT_KEPT, ids=[value for value, _ in NOT_KEPT])
async def test_a_task_whose_inputs_cannot_be_kept_has_failed(house, value, said):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.publish("tasks", "a", message(task, f'{{"n": {value}}}'))
        await rejected(house, "a")
        told = await error(house)
        assert told["message"] == f"no worker can read the message of this task: inputs.n: {said}"


async def test_a_result_of_another_version_is_kept_and_fails_nothing(house):
    async with house.coordinator():
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        newer = {"v": 2, "task_id": str(task.task_id), "run_id": "r", "outputs": {"x": 1}}
        await house.publish("results", "a.succeeded", newer)
        await house.publish("results", "a.succeeded", [newer, newer])
        letters = await dead(house, 3)
        assert {letter.reason for letter in letters} == {"unknown-version"}
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_what_is_too_deep_does_not_take_its_array_along(house):
    async with house.coordinator():
        await house.start("a", "r1")
        await house.start("a", "r2")
        first, second = await house.tasks("a", 2)
        fine = {"task_id": str(first.task_id), "run_id": first.run_id, "outputs": {"x": 1}}
        named = f'{{"task_id": "{second.task_id}", "run_id": "{second.run_id}", "outputs": {DEEP}}}'
        body = b"[" + codec.dumps(fine) + b"," + named.encode() + b"," + DEEP.encode() + b',{"odd": 1}]'
        await house.publish("results", "a.succeeded", body)
        assert (await house.run_ended(first.run_id)).status == "succeeded"
        assert (await house.run_ended(second.run_id)).status == "failed"
        letters = await dead(house, 2)
        assert sorted((letter.reason, letter.body) for letter in letters) == [
            ("invalid", b'{"odd":1}'),
            ("too-deep", body),
        ]


@pytest.mark.parametrize("exchange", ["starts", "commands"])
async def test_what_is_asked_with_too_deep_inputs_is_kept_with_the_reason(house, exchange):
    deep = '{"a":' * 195 + "1" + "}" * 195
    bodies = {
        "starts": f'{{"node": "a", "run_id": "r", "inputs": {deep}}}',
        "commands": f'{{"id": "{RUN["task_id"]}", "kind": "signal", "run_id": "r", "name": "go", "input": {deep}}}',
    }
    async with house.coordinator():
        await house.publish(exchange, "a", bodies[exchange].encode())
        (letter,) = await dead(house)
        assert letter.reason == "too-deep"
        assert "nested deeper than 190 levels" in letter.detail

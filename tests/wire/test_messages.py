"""What the models read and refuse, beyond the golden files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import Unreadable
from flowkit.wire.items import Gather, Send, Wait, as_send, unwrap, wrap
from flowkit.wire.messages import Log, Message, Result, Start, Status, Task, Worker, decode, decode_many, rfc3339

TASK = "0b6f6a1c-4c8e-4f0e-8a8a-5b7f3c1d2e4f"
LEAST = {"task_id": TASK, "run_id": "r", "nodes": [], "outputs": {}, "message": ""}


def read(model: type[Message], value: Any) -> Any:
    return decode(model, json.dumps(value).encode())


def test_the_least_of_a_start() -> None:
    start = read(Start, {"node": "add", "inputs": {"a": 1}})
    assert (start.node, start.inputs, start.run_id, start.delay, start.finished) == ("add", {"a": 1}, None, 0, None)


def test_the_least_of_a_result() -> None:
    result = read(Result, LEAST)
    assert (result.status, result.attempt, result.nodes) == (Status.SUCCEEDED, None, ())


def test_only_what_was_set_travels() -> None:
    assert json.loads(Start(node="add").encode()) == {"v": 1, "node": "add"}


@pytest.mark.parametrize(
    "ts", ["2026-01-31T12:00:00.25Z", "2026-01-31T13:00:00.25+01:00", "2026-01-31T12:00:00.25", 1769860800.25]
)
def test_times_are_text_or_unix_seconds(ts: Any) -> None:
    line = read(Log, {"ts": ts, "level": "INFO", "message": ""})
    assert line.ts == 1769860800.25
    assert json.loads(line.encode())["ts"] == rfc3339(1769860800.25) == "2026-01-31T12:00:00.250000Z"


@given(st.floats(min_value=0, max_value=253402214399) | st.integers(0, 2**31).map(lambda n: n + 0.9999996))
def test_times_are_written_as_datetime_writes_them(seconds: float) -> None:
    said = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    assert rfc3339(seconds) == said.replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("model", "value", "reason", "said"),
    [
        (Start, [], "not-an-object", "got list"),
        (Start, 3, "not-an-object", "got int"),
        (Start, {"v": 2, "node": "add"}, "unknown-version", "upgrade"),
        (Start, {"v": "1", "node": "add"}, "unknown-version", "'1'"),
        (Start, {}, "invalid", "node"),
        (Start, {"node": "../../x"}, "invalid", "node"),
        (Start, {"node": "add\n"}, "invalid", "node"),
        (Start, {"node": "9lives"}, "invalid", "node"),
        (Start, {"node": "a" * 64}, "invalid", "node"),
        (Start, {"node": "add", "run_id": "a/b"}, "invalid", "run_id"),
        (Start, {"node": "add", "run_id": "x" * 101}, "invalid", "run_id"),
        (Start, {"node": "add", "inputs": [1]}, "invalid", "inputs"),
        (Start, {"node": "add", "delay": -1}, "invalid", "delay"),
        (Start, {"node": "add", "deadline": 0}, "invalid", "deadline"),
        (Start, {"node": "add", "finished": {"status": "retry"}}, "invalid", "finished"),
        (Task, {"task_id": "7", "run_id": "r", "node": "add"}, "invalid", "task_id"),
        (Task, {"task_id": TASK, "run_id": "r", "node": "add", "attempt": 0}, "invalid", "attempt"),
        (Result, {**LEAST, "status": "done"}, "invalid", "status"),
        (Result, {**LEAST, "status": "started"}, "invalid", "must carry attempt"),
        (Result, {**LEAST, "status": "returned"}, "invalid", "must carry attempt"),
        (Result, {**LEAST, "status": "retry", "retry_in": 1}, "invalid", "must carry attempt"),
        (Result, {**LEAST, "nodes": "store"}, "invalid", "nodes"),
        (Result, {**LEAST, "nodes": [{"send": {}}]}, "invalid", "nodes"),
        (Result, {**LEAST, "nodes": [{"gather": {"sends": []}}]}, "invalid", "then"),
        (Result, {**LEAST, "nodes": [{"sleep": {}}]}, "invalid", "nodes"),
        (Log, {"ts": "yesterday", "level": "INFO", "message": ""}, "invalid", "ts"),
        (Log, {"ts": -1, "level": "INFO", "message": ""}, "invalid", "ts"),
        (Log, {"ts": 1e300, "level": "INFO", "message": ""}, "invalid", "ts"),
        (Worker, {"worker": "w", "running": [[TASK]]}, "invalid", "running"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(model: type[Message], value: Any, reason: str, said: str) -> None:
    with pytest.raises(Unreadable, match=said) as refused:
        read(model, value)
    assert refused.value.reason == reason
    assert "\n" not in str(refused.value)


def test_one_bad_message_spoils_its_array() -> None:
    with pytest.raises(Unreadable, match="task_id"):
        decode_many(Result, json.dumps([LEAST, {"run_id": "r"}]).encode())


@pytest.mark.parametrize(
    "item",
    [
        Send("resize"),
        Send("resize", {"url": "u"}, delay=30),
        Gather([], then="collage"),
        Gather(["thumbnail", Send("resize", {})], then=Send("collage", {"title": "t"}), max_concurrency=3, timeout=9.5),
        Wait("approval", then="ship", timeout=1, on_timeout="escalate"),
    ],
)
def test_items_travel_and_come_back(item: Any) -> None:
    result = Result.model_validate({**LEAST, "nodes": [wrap(item), wrap("store")]})
    back = decode(Result, result.encode())
    assert [unwrap(one) for one in back.nodes] == [item, Send("store")]


def test_a_plain_name_is_a_send_of_the_outputs() -> None:
    assert as_send("store") == Send("store", None)
    assert as_send(Send("store", {})) == Send("store", {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Send("../x"),
        lambda: Send("resize", [1]),
        lambda: Send("resize", delay=-1),
        lambda: Send("resize", dealy=1),  # a misspelt keyword is an error in Python
        lambda: Gather(["a"], then="b", max_concurrency=0),
        lambda: Gather(["a"], then="b", timeout=0),
        lambda: Wait("", then="ship"),
    ],
)
def test_authors_mistakes_are_errors_where_they_are_made(make: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


def test_an_entry_of_an_announcement_may_say_more_than_we_know() -> None:
    (entry,) = read(Worker, {"worker": "w", "running": [[TASK, 1, None, "r1", {"future": 1}]]}).running
    assert (entry.attempt, entry.since, entry.run_id) == (1, None, "r1")


@pytest.mark.parametrize("entry", [["x"], "abcd", [1, 2], 7, [], [TASK, 1], [TASK, 0, None], [TASK, 1, None, "/"]])
def test_an_entry_of_an_announcement_that_is_none(entry: object) -> None:
    with pytest.raises(Unreadable, match="running"):
        read(Worker, {"worker": "w", "running": [entry]})

"""What is over a bound of the contract stops nobody; what a store has kept since before there were bounds is read."""

from __future__ import annotations

import asyncio
import sqlite3
from random import Random
from typing import Any

import pytest

from flowkit.coordinator.dropped import Dropped
from flowkit.errors import Unreadable
from flowkit.flow.schedules import Schedule, tick
from flowkit.wire import bounds, codec
from flowkit.wire import messages as wire
from tests.coordinator.house import House
from tests.coordinator.test_unreadable import dead
from tests.wire.odd import astral, letters

LONG = Random(3).randbytes(4_500).hex()  # no index of PostgreSQL holds it, compressed or not
LINE = {"ts": 1, "level": "INFO", "message": "hello", "run_id": "r"}


async def test_a_log_line_with_a_long_name_takes_no_other_along(either_house: House, caplog) -> None:
    house = either_house
    async with house.coordinator():
        await house.publish("logs", "", LINE | {"worker": LONG, "seq": 1}, durable=False)
        await house.publish("logs", "", [LINE | {"worker": LONG}, LINE | {"message": "beside"}], durable=False)
        await house.publish("logs", "", LINE | {"message": "last", "worker": astral(bounds.WORKER), "seq": 2**63 - 1})
        lines = await house.until(
            lambda queries: found if len(found := queries.logs(run_id="r")) == 2 else None, "the good lines"
        )
        assert {line.message for line in lines} == {"beside", "last"}
        await house.start("a", "r")
        await house.answer((await house.tasks("a"))[0])
        assert (await house.run_ended("r")).status == "succeeded"
    said = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    (told,) = said
    assert told.startswith("log message at offset 0 cannot be read and is dropped, 1 so far: invalid: worker: String ")


async def test_an_announcement_with_a_long_name_takes_no_other_along(either_house: House, caplog) -> None:
    house = either_house
    async with house.coordinator():
        await house.publish("workers", "", {"worker": LONG}, durable=False)
        await house.publish("workers", "", {"worker": "w", "nodes": [{"name": "a", "limit": 2**31}]}, durable=False)
        await house.publish("workers", "", {"worker": astral(bounds.WORKER), "version": LONG[:200]}, durable=False)
        (row,) = await house.until(lambda queries: queries.workers(seen_since=0), "the good one")
        assert len(row.name) == bounds.WORKER
    assert "announcement cannot be read and is dropped, 1 so far: invalid: worker: String should have" in caplog.text


def test_what_is_dropped_is_counted_and_told_once_a_minute(caplog) -> None:
    now = 100.0
    dropped = Dropped("announcement", "bad", clock=lambda: now)
    for _ in range(1_000):
        dropped.add(Unreadable("invalid", "worker"))
    now += 61
    dropped.add(Unreadable("invalid", "worker"), "at offset 3")
    assert dropped.count == 1_001
    assert [record.getMessage() for record in caplog.records] == [
        "announcement cannot be read and is dropped, 1 so far: invalid: worker",
        "announcement at offset 3 cannot be read and is dropped, 1,001 so far: invalid: worker",
    ]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"tags": {LONG: "v"}}, "tags."),
        ({"tags": {"k": LONG}}, "tags.k: String should have at most 2000 characters"),
        ({"tags": {str(number): "" for number in range(101)}}, "tags: Dictionary should have at most 100 items"),
        ({"finished": {"message": "x" * 65_537}}, "finished.message: String should have at most 65536 characters"),
        ({"finished": {"nodes": [{"wait": {"name": LONG, "then": "b"}}]}}, "String should have at most 100 characters"),
        ({"finished": {"nodes": [{"gather": {"sends": ["b"], "then": "b", "max_concurrency": 2**31}}]}}, "2147483647"),
    ],
    ids=["tag key", "tag value", "tags", "message", "signal", "max_concurrency"],
)
async def test_a_start_over_a_bound_is_kept_with_the_reason(house: House, start: dict[str, Any], said: str) -> None:
    async with house.coordinator():
        await house.publish("starts", "a", {"node": "a"} | start)
        (letter,) = await dead(house)
        assert letter.reason == "invalid"
        assert said in letter.detail
        assert len(letter.detail) < 5_000


async def test_a_result_over_a_bound_fails_its_task(either_house: House) -> None:
    house = either_house
    gather = {"gather": {"sends": ["b"], "then": "b", "max_concurrency": 2**31}}
    bad = [{"worker": LONG}, {"nodes": [gather]}, {"error": {"type": LONG}}, {"v": LONG}, {"started_at": LONG}]
    async with house.coordinator():
        for number, more in enumerate(bad):
            await house.start("a", f"r{number}")
            (task,) = await house.tasks("a")
            await house.answer(task, **more)
        (letter,) = await dead(house)
        assert letter.reason == "unknown-version", "it may be fine, for another coordinator"
        assert len(letter.detail) < 200
        for number in (0, 1, 2, 4):
            error = codec.loads((await house.run_ended(f"r{number}")).error)
            assert error["type"] == "InvalidResult"
            assert len(error["message"]) < 2_000


async def test_at_their_bounds_all_texts_are_kept(either_house: House) -> None:
    house, text = either_house, letters(bounds.TEXT)
    async with house.coordinator():
        tags = {letters(bounds.TAG_KEY): astral(bounds.TAG_VALUE) for _ in range(bounds.TAGS)}
        await house.start("a", "r" * 100, tags=tags)
        (task,) = await house.tasks("a")
        error = {"type": astral(bounds.ERROR_TYPE), "message": text, "traceback": text}
        await house.answer(task, status="failed", message=text, error=error, worker=astral(bounds.WORKER))
        run = await house.run_ended("r" * 100)
        assert codec.loads(run.error)["message"] == text
        wait = {"wait": {"name": astral(bounds.SIGNAL), "then": "b"}}
        await house.start("a", "s" * 100)
        (task,) = await house.tasks("a")
        await house.answer(task, [wait])
        signal = {"id": "6f1c1c1e-0000-4000-8000-000000000001", "kind": "signal", "run_id": "s" * 100}
        await house.publish("commands", "signal", signal | {"name": astral(bounds.SIGNAL)})
        await house.publish("commands", "signal", signal | {"id": str(task.task_id), "name": wait["wait"]["name"]})
        await house.answer((await house.tasks("b"))[0])
        assert (await house.run_ended("s" * 100)).status == "succeeded"


@pytest.mark.parametrize("part", [b"0", b"1e400"])
async def test_an_array_of_too_many_results_is_one_dead_letter(house: House, part: bytes) -> None:
    body = b"[" + (part + b",") * 100_000 + part + b"]"
    async with house.coordinator():
        await house.publish("results", "a.succeeded", body)
        (letter,) = await dead(house)
        assert (letter.reason, letter.detail) == (
            "too-many", "an array of 100,001 messages; at most 10,000 may share one"
        )  # fmt: skip
        assert letter.body == body


# From before there were bounds


async def test_lines_and_workers_of_before_are_read_with_their_texts_cut(house: House, tmp_path) -> None:
    line: dict[str, Any] = {"v": 1, "ts": 1, "level": "INFO", "message": "m"}
    long = line | {"message": "x" * 70_000, "worker": LONG, "level": "L" * 60}
    node = {"name": "a", "limit": 2**40, "next": [LONG]}
    worker = codec.dumps({"v": 1, "worker": "w", "version": LONG, "nodes": [node]})
    with sqlite3.connect(tmp_path / "flowkit.db") as database:
        add = "INSERT INTO logs (ts, line) VALUES (1, ?)"
        database.executemany(add, [(codec.dumps(long),), (codec.dumps(line | {"seq": 2**64 - 1}),)])
        database.execute("INSERT INTO workers VALUES (?, ?, 1, 0, ?)", (b"w", LONG.encode(), worker))
        add = "INSERT INTO nodes (name, info, announced_at) VALUES ('a', ?, 1)"
        database.execute(add, (codec.dumps(node),))
    first, second = await house.store.query(lambda queries: queries.logs())
    assert len(first.message) <= bounds.TEXT
    assert first.message.endswith(" characters left out)")
    assert first.worker is not None
    assert len(first.worker) == bounds.WORKER
    assert (second.message, second.seq) == ("m", None)
    (heard,) = await house.store.transact(lambda transaction: transaction.heard(0))
    assert heard.worker == "w"
    async with house.coordinator():
        await house.start("a", "r")
        await house.answer((await house.tasks("a"))[0])
        assert (await house.run_ended("r")).status == "succeeded"


async def test_the_end_of_a_run_of_before_can_be_read_by_its_client(house: House, tmp_path) -> None:
    async with house.coordinator():
        await house.start("a", "r", tags={"k": "v"})
        (task,) = await house.tasks("a")
        await house.answer(task, status="failed", error={"type": "E"})
        await house.run_ended("r")
    error = codec.dumps({"type": "E" * 300, "message": "m" * 70_000, "node": "a"})
    with sqlite3.connect(tmp_path / "flowkit.db") as database:
        database.execute("UPDATE runs SET message = ?, error = ?", (b"m" * 70_000, error))
    ear = house.broker.consume(house.topology.runs("ear"), prefetch=10)
    async with house.coordinator(), asyncio.timeout(10):
        await ear.wait_connected()
        await house.start("a", "r", tags={"k": "v"})
        (delivery,) = await ear.receive(1)
        ended = wire.decode(wire.RunEnded, delivery.body)
        assert ended.error is not None
        assert ended.message == ended.error.message == bounds.cut("m" * 70_000)
        assert codec.loads(delivery.body)["error"]["node"] == "a"
    await ear.close()


def test_a_schedule_of_before_begins_its_runs() -> None:
    tags = {f"k{number}": "v" * 3_000 for number in range(101)}
    old = Schedule(
        name="s", cron="", timezone="UTC", node="a", tags=codec.dumps(tags), created_at=0, next_at=60, look_at=60
    )
    _, begun = tick(old, 61, lambda now: 120 if now >= 60 else 60, busy=False)
    assert begun is not None
    assert begun.start.tags == tags


@pytest.mark.parametrize("text", ["", "é" * 60])
def test_what_is_within_its_bound_is_not_cut(text: str) -> None:
    assert bounds.cut(text, 60) == text


def test_what_is_cut_says_how_much_is_gone() -> None:
    assert bounds.cut("é" * 70_000, 60) == "é" * 30 + "… (69,970 characters left out)"

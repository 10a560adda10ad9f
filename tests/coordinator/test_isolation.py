"""One message, one row, one loop that fails stops neither the others nor the coordinator."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from flowkit.broker import Outgoing
from flowkit.coordinator import isolation
from flowkit.coordinator.isolation import Skipped, keep_running, process_apart
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.reading import Reader
from flowkit.coordinator.replaying import Replays
from flowkit.coordinator.retention import Retention
from flowkit.coordinator.sweeper import Sweeper
from flowkit.errors import StoreUnreachable, Unstorable, WrongBroker
from flowkit.flow.limits import Limits
from flowkit.flow.schedules import Missed, Schedule
from flowkit.store.protocol import DeadLetter
from flowkit.store.transaction import SqlTransaction
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST


async def test_those_that_cannot_be_processed_stand_alone() -> None:
    seen = []

    async def work(items):
        if bad := [item for item in items if item % 7 == 3]:
            raise ValueError(bad)
        seen.extend(items)
        return list(items)

    results, failed = await process_apart(list(range(20)), work)
    assert [item for item, _ in failed] == [3, 10, 17]
    assert [str(error) for _, error in failed] == ["[3]", "[10]", "[17]"]
    assert [item for one in results for item in one] == seen == [n for n in range(20) if n % 7 != 3]


@pytest.mark.parametrize("error", [StoreUnreachable("u", "away"), OSError("no"), MemoryError()])
async def test_no_item_is_blamed_for_what_is_around_it(error) -> None:
    async def work(items):
        raise ExceptionGroup("of a task group", [error])

    with pytest.raises(type(error)):
        await process_apart([1, 2], work)


async def test_a_loop_begins_again_after_a_bug_and_ends_by_what_is_final(caplog, monkeypatch) -> None:
    monkeypatch.setattr(isolation, "PAUSES", (0,))
    errors = [KeyError("a bug"), ExceptionGroup("g", [KeyError("a bug in a group")]), WrongBroker("of another store")]

    async def loop():
        raise errors.pop(0)

    with pytest.raises(WrongBroker):
        await keep_running("the loop", loop)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert "the loop failed by an unexpected error" in caplog.text


def test_what_is_skipped_is_counted_and_each_reason_logged_once(caplog) -> None:
    skipped = Skipped("lines", "bad_line")
    for number in range(25):
        skipped.add(str(number), Unstorable("too long" if number else "too odd"))
    assert skipped.total == 25
    assert [record.message.split(" is ")[0] for record in caplog.records] == ["lines: 0", "lines: 1", "lines: 10"]
    assert all(record.exc_info is None for record in caplog.records), "the reason says all"


async def announce(house, worker, *, node="a") -> None:
    told = wire.Worker(worker=worker, nodes=(wire.NodeInfo(name=node),))
    sent = Outgoing(house.topology.name("workers"), "", told.encode(), type="flowkit.worker", durable=False)
    assert await house.broker.publish([sent]) == [None]


async def test_an_announcement_that_cannot_be_stored_leaves_the_others(house, monkeypatch, caplog) -> None:
    record = SqlTransaction.record_workers

    def refusing(self, announcements, at):
        if any(told.worker == "bad" for told in announcements):
            raise Unstorable("index row size 9000 exceeds btree maximum")
        record(self, announcements, at)

    monkeypatch.setattr(SqlTransaction, "record_workers", refusing)
    async with house.coordinator():
        for worker in ("good-1", "bad", "good-2", "bad"):
            await announce(house, worker)
        await house.until(lambda q: len(q.workers(seen_since=0)) == 2, "both good ones")
    assert caplog.text.count("of worker bad is skipped") == 1


async def test_a_log_line_that_cannot_be_stored_leaves_the_others(house, monkeypatch, caplog) -> None:
    archive = SqlTransaction.archive

    def refusing(self, lines, offset):
        if any(line.message == "bad" for line in lines):
            raise Unstorable("index row size 9000 exceeds btree maximum")
        archive(self, lines, offset)

    async def log(*messages):
        lines = [{"ts": 1.0, "level": "info", "message": message, "worker": "w"} for message in messages]
        body = codec.dumps(lines if len(lines) > 1 else lines[0])
        sent = Outgoing(house.topology.name("logs"), "", body, type="flowkit.log", durable=False)
        assert await house.broker.publish([sent]) == [None]

    monkeypatch.setattr(SqlTransaction, "archive", refusing)
    async with house.coordinator():
        for messages in (("1", "bad", "2"), ("bad",), ("3",)):
            await log(*messages)
        await house.until(lambda q: sorted(one.message for one in q.logs()) == ["1", "2", "3"], "the good lines")
        await log("4")
        await house.until(lambda q: any(one.message == "4" for one in q.logs()), "what comes later")
    assert "of worker w, run None is skipped" in caplog.text
    async with house.coordinator():  # the offset stands behind it
        await log("5")
        await house.until(lambda q: any(one.message == "5" for one in q.logs()), "what comes after a restart")
    lines = await house.store.query(lambda q: [one.message for one in q.logs()])
    assert sorted(lines) == ["1", "2", "3", "4", "5"]


async def execute(house, statement, **values) -> None:
    await house.store.transact(lambda tx: tx._database.execute(statement, values))


async def test_what_a_newer_version_announced_ends_no_older_coordinator(house, monkeypatch, caplog) -> None:
    looked, look = asyncio.Event(), Sweeper.look

    async def watched(self):
        found = await look(self)
        looked.set()
        return found

    monkeypatch.setattr(Sweeper, "look", watched)
    await execute(
        house,
        "INSERT INTO workers (name, version, seen_at, stopping, announcement) VALUES (:name, :v, :at, :no, :told)",
        name=b"newer", v=b"9", at=time.time(), no=False, told=b'{"v": 99, "name": "newer"}',
    )  # fmt: skip
    await execute(
        house,
        "INSERT INTO nodes (name, info, announced_at, limits) VALUES (:name, :info, 1, :limits)",
        name="a", info=b'{"name": 5}', limits=b'{"limit": "some", "burst": 7}',
    )  # fmt: skip
    async with house.coordinator(pace=replace(FAST, sweep_every=0.02, sweep_after=-1e9)):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        looked.clear()
        await looked.wait()
        await house.answer(task)
        await house.run_ended("r1")
    assert "table workers: row 'newer' is left out" in caplog.text
    assert caplog.text.count("table nodes: row 'a' is left out") <= 1, "once, however often it is read"


async def test_a_schedule_that_cannot_be_begun_leaves_the_others(house, caplog) -> None:
    good = Schedule(name="good", cron="* * * * *", timezone="UTC", node="a", created_at=0, next_at=1.0, look_at=1.0,
                    missed=Missed.ONCE)  # fmt: skip
    for one in (
        good,
        replace(good, name="no-json", inputs=b"{"),
        replace(good, name="no-such-node", node="a b\n"),
        replace(good, name="odd"),
    ):
        await house.store.transact(lambda tx, one=one: tx.put_schedule(one))
    await execute(house, "UPDATE schedules SET missed = 'sometimes' WHERE name = 'odd'")
    async with house.coordinator(pace=replace(FAST, schedules_every=0.02)):
        (task,) = await house.tasks("a")
        assert task.run_id.startswith("good-")
        await house.answer(task)
        await house.run_ended(task.run_id)
        rows = {
            row.schedule.name: row.schedule
            for row in await house.until(
                lambda q: [row for row in q.schedules() if row.schedule.skipped][1:] and q.schedules(), "both said"
            )
        }
    assert "not-json" in rows["no-json"].skipped
    assert "should match pattern" in rows["no-such-node"].skipped
    assert "table schedules: row 'odd' is left out" in caplog.text


async def test_a_run_that_cannot_be_ended_by_time_leaves_the_others(house, caplog) -> None:
    async with house.coordinator():
        for run_id in ("r1", "r2", "r3"):
            await house.start("a", run_id)
        await house.tasks("a", 3)
    await execute(house, "UPDATE runs SET deadline = 1")
    await execute(house, "UPDATE runs SET message = x'ff' WHERE id = 'r2'")
    async with house.coordinator():
        for run_id in ("r1", "r3"):
            assert "DeadlineExceeded" in (await house.run_ended(run_id)).message
        await house.until(lambda q: "RunExpired of run r2 is skipped" in caplog.text, "it is said")
        await execute(house, "UPDATE runs SET message = x'' WHERE id = 'r2'")
        await house.run_ended("r2")
    assert caplog.text.count("RunExpired of run r2 is skipped (1 ") == 1


async def test_a_message_over_which_the_reader_stumbles_leaves_the_others(house, monkeypatch) -> None:
    read = Reader.read

    def stumbling(self, delivery):
        if b"stumble" in delivery.body:
            raise RecursionError("too deep for anybody")
        return read(self, delivery)

    monkeypatch.setattr(Reader, "read", stumbling)
    async with house.coordinator():
        await house.start("a", "r1", inputs={"x": "stumble"})
        await house.start("a", "r2")
        (task,) = await house.tasks("a")
        assert task.run_id == "r2"
        (letter,) = await house.until(lambda q: q.dead(limit=9), "a dead letter")
    assert letter.reason == "rejected"
    assert "RecursionError: too deep for anybody" in letter.detail


async def test_a_loop_with_a_bug_leaves_the_others_and_begins_again(house, monkeypatch, caplog) -> None:
    monkeypatch.setattr(isolation, "PAUSES", (0.01,))
    sweep, tries = Retention.sweep, []

    async def buggy(self):
        tries.append(1)
        if len(tries) < 3:
            raise KeyError("a bug")
        return await sweep(self)

    monkeypatch.setattr(Retention, "sweep", buggy)
    async with house.coordinator(pace=replace(FAST, retention=1e9, retention_every=0.02)):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task)
        await house.run_ended("r1")
        await house.until(lambda q: len(tries) >= 4, "it runs again")
    assert caplog.text.count("the loop Retention.run failed by an unexpected error") == 2


@pytest.mark.parametrize("held", ["rows of runs", "a table"])
async def test_what_waits_for_locks_for_too_long_is_no_fault_of_the_message(
    real_house, postgres_database, caplog, held
) -> None:
    """The login has a lock_timeout, and another session holds locks for longer."""
    house, name = real_house, postgres_database.rpartition("/")[2]
    async with house.coordinator(pace=replace(FAST, early=0)):
        await house.start("a", "r1")
        (task,) = await house.tasks("a")
        await house.answer(task, [{"wait": {"name": "ok", "then": "b"}}])
        await house.start("a", "r2")
        (other,) = await house.tasks("a")
        await house.until(lambda q: [row for row in q.tasks("r1") if row.status == "waiting"], "it waits")
        await execute(house, f"ALTER DATABASE {name} SET lock_timeout = '50ms'")
        await execute(house, "SET lock_timeout = '50ms'")  # for the connection that is there
        with psycopg.connect(postgres_database) as session:
            session.execute("SELECT id FROM runs FOR UPDATE" if held == "rows of runs" else "LOCK TABLE tasks")
            command = {"id": str(uuid4()), "kind": "signal", "run_id": "r1", "name": "ok", "input": {"x": 1}}
            await house.publish("commands", "r1", command)
            await house.answer(other, [], {"ok": True})
            async with asyncio.timeout(20):
                while caplog.text.count("lock timeout") < 2:
                    await asyncio.sleep(0.01)
        assert (await house.run_ended("r2")).status == "succeeded"
        (then,) = await house.tasks("b")
        await house.answer(then)
        await house.run_ended("r1")
        assert await house.store.query(lambda q: q.count_dead()) == 0


async def test_a_replay_whose_note_was_committed_without_an_answer_goes_through(house, monkeypatch) -> None:
    """So does one that another coordinator has carried out meanwhile."""
    ledger = Ledger(house.store, Limits(), b"")
    letter = DeadLetter("rejected", "", house.topology.starts.name, b'{"node":"a","run_id":"r1"}', b"{}", 1.0)
    await house.broker.declare(house.topology.standing)
    await house.store.transact(lambda tx: tx.add_dead([letter]))
    (kept,) = await house.store.query(lambda q: q.dead(limit=1))
    command = wire.Command(id=uuid4(), kind="replay", letters=(kept.id,))
    write, lost = SqlTransaction.write, []
    transact = house.store.transact

    def noting(self, changes, state=None):
        lost.append("once")
        return write(self, changes, state)

    async def unanswered(function):
        result = await transact(function)
        if lost == ["once"]:
            lost.append("answered never")
            raise StoreUnreachable("postgresql://", "server closed the connection unexpectedly")
        return result

    monkeypatch.setattr(SqlTransaction, "write", noting)
    monkeypatch.setattr(house.store, "transact", unanswered)
    async with asyncio.timeout(5):
        assert await Replays(house.broker, house.topology, ledger).carry_out(command) is None
    assert lost == ["once", "answered never"], "noted once, and found when it was tried again"
    monkeypatch.undo()
    assert await Replays(house.broker, house.topology, ledger).carry_out(command) is None
    assert (await house.broker.inspect(house.topology.starts.name)).ready == 1


async def test_a_command_that_cannot_be_noted_holds_up_no_other(house, monkeypatch, caplog) -> None:
    caplog.set_level(logging.ERROR)

    async def failing(self, command):
        raise Unstorable("duplicate key value violates unique constraint")

    monkeypatch.setattr(Replays, "carry_out", failing)
    async with house.coordinator():
        await house.publish("commands", "-", {"id": str(uuid4()), "kind": "replay", "letters": [1]})
        await house.start("a", "r1")
        await house.tasks("a")
        await house.publish("commands", "r1", {"id": str(uuid4()), "kind": "cancel", "run_id": "r1"})
        assert (await house.run_ended("r1")).status == "cancelled"
        (letter,) = await house.until(lambda q: q.dead(limit=9), "a dead letter")
    assert letter.reason == "rejected"
    assert "duplicate key" in letter.detail


async def test_a_task_that_cannot_be_sent_leaves_the_others(house, monkeypatch, caplog) -> None:
    async with house.coordinator():
        for run_id in ("r1", "r2", "r3"):
            await house.start("a", run_id)
        await house.tasks("a", 3)
    await execute(house, "UPDATE tasks SET sent_at = NULL, unsent_since = 0")
    await execute(house, "UPDATE tasks SET first_started_at = 1e300 WHERE run_id = 'r1'")
    async with house.coordinator():
        assert {task.run_id for task in await house.tasks("a", 2)} == {"r2", "r3"}
        await house.until(lambda q: "of run r1 is skipped" in caplog.text, "it is said")
        await execute(house, "UPDATE tasks SET first_started_at = NULL")
        (task,) = await house.tasks("a")
        assert task.run_id == "r1"


async def test_tasks_of_a_loop_that_fails_before_it_sends_them_are_left_to_the_relay(house, monkeypatch) -> None:
    monkeypatch.setattr(isolation, "PAUSES", (0.01,))
    send, failed = Outbox.send, []

    async def failing(self, tasks):
        if tasks and not failed:
            failed.append([task.run_id for task in tasks])
            raise KeyError("a bug")
        return await send(self, tasks)

    async with house.coordinator():
        monkeypatch.setattr(Outbox, "send", failing)
        await house.start("a", "r1", delay=0.01)
        (task,) = await house.tasks("a")
        assert (task.run_id, failed) == ("r1", [["r1"]])

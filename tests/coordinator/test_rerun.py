"""Reruns, replays of dead letters and detached runs through the real coordinator and store."""

from __future__ import annotations

from uuid import uuid4

import pytest

from flowkit.store.protocol import DeadLetter
from flowkit.store.transaction import SqlTransaction
from flowkit.wire import codec
from flowkit.wire import messages as wire


async def command(house, kind, **fields):
    message = {"id": str(uuid4()), "kind": kind, **fields}
    await house.publish("commands", kind, message)
    return message


async def chain(house) -> None:
    """An ended run ``r``: a, then two times b, joined by c."""
    await house.start("a", "r", inputs={"x": 1}, tags={"tenant": "acme"})
    (first,) = await house.tasks("a")
    sends = [{"node": "b", "inputs": {"n": n}} for n in range(2)]
    await house.answer(first, [{"gather": {"sends": sends, "then": "c"}}], {"g": 1})
    for task in await house.tasks("b", 2):
        await house.answer(task, outputs=task.inputs)
    (joined,) = await house.tasks("c")
    await house.answer(joined, outputs={"sum": 1})
    await house.run_ended("r")


async def path_of(house, run_id: str, path: str):
    return next(row for row in await house.rows(run_id) if row.path == path)


async def test_only_what_follows_from_the_task_runs_again(house):
    async with house.coordinator():
        await chain(house)
        again = await path_of(house, "r", "0.0.1")
        await command(house, "rerun", run_id="r", task_id=str(again.id), input={"n": 5}, new_run_id="new")
        (task,) = await house.tasks("b")
        assert (task.run_id, task.inputs) == ("new", {"n": 5})
        assert task.task_id not in {row.id for row in await house.rows("r")}
        await house.answer(task, outputs={"n": 50})
        (joined,) = await house.tasks("c")
        assert joined.inputs == {"g": 1, "results": [{"n": 0}, {"n": 50}]}
        await house.answer(joined, outputs={"sum": 50})
        run = await house.run_ended("new")
        assert (run.status, run.parent, run.origin, run.tags) == ("succeeded", "r", "rerun", b'{"tenant":"acme"}')
        assert (await house.store.query(lambda queries: queries.run("r"))).status == "succeeded"
        assert [one.kind for one in await house.store.query(lambda queries: queries.commands("r"))] == ["rerun"]


async def test_reruns_on_real_services(real_house):
    await test_only_what_follows_from_the_task_runs_again(real_house)


async def test_who_waits_for_a_rerun_hears_its_end_again_and_why_it_was_refused(house):
    ear = house.broker.consume(house.topology.runs("test"), prefetch=10)
    async with house.coordinator():
        await chain(house)
        await ear.receive(1)
        asked = await command(house, "rerun", run_id="r", new_run_id="new")
        (task,) = await house.tasks("a")
        await house.answer(task, outputs={"y": 2})
        await ear.receive(1)
        await house.publish("commands", "rerun", asked)
        (again,) = await ear.receive(1)
        assert wire.decode(wire.RunEnded, again.body).outputs == {"y": 2}
        for run_id, node, says in (("r", "a", "has no such task"), ("ghost", "unknown", "no run 'ghost'")):
            refused = await command(house, "rerun", run_id=run_id, task_id=str(uuid4()), new_run_id="none")
            (told,) = await ear.receive(1)
            ended = wire.decode(wire.RunEnded, told.body)
            assert (ended.run_id, ended.node, ended.status, says in ended.message) == ("none", node, "conflict", True)
            assert told.headers[wire.REFUSED] == refused["id"]
        await house.until(lambda queries: queries.count_dead() == 2, "the refused commands")
    await ear.close()


# Replay


async def test_a_dead_letter_is_published_again_and_gone(house):
    async with house.coordinator():
        await house.publish("starts", "a", {"node": "a", "run_id": "r1", "inputs": 5})
        (letter,) = await house.until(lambda queries: queries.dead(limit=9), "a dead letter")
        fixed = wire.Start(node="a", run_id="r2").encode()
        await house.store.transact(
            lambda tx: tx.add_dead([DeadLetter("invalid", "", letter.queue, fixed, letter.properties, 1.0)])
        )
        asked = await command(house, "replay", letters=[2])
        (task,) = await house.tasks("a")
        assert task.run_id == "r2"
        await house.until(lambda queries: [one.id for one in queries.dead(limit=9)] == [1], "one letter left")
        await house.publish("commands", "replay", asked)  # once by its id: no word about a letter that has gone
        await command(house, "replay", letters=[1, 1, 7, 8])
        letters = await house.until(
            lambda queries: len(found := queries.dead(limit=9)) == 2 and found, "what is wrong still, and the refusal"
        )
        assert {one.reason for one in letters} == {"invalid", "refused"}
        assert "there is no dead letter 7, 8" in [one.detail for one in letters]
        assert 1 not in {one.id for one in letters}


async def test_replay_on_real_services(real_house):
    await test_a_dead_letter_is_published_again_and_gone(real_house)


async def test_a_crash_between_publishing_and_removing_loses_nothing(house, monkeypatch):
    remove_dead = SqlTransaction.remove_dead

    def crash(transaction, ids):
        raise OSError("the process dies here")

    body = wire.Start(node="a", run_id="r1").encode()
    letter = DeadLetter("rejected", "", house.topology.starts.name, body, b"{}", 1.0)
    await house.store.transact(lambda transaction: transaction.add_dead([letter]))
    monkeypatch.setattr(SqlTransaction, "remove_dead", crash)

    async def replay_and_die():
        async with house.coordinator() as coordinator:
            await command(house, "replay", letters=[1])
            await house.until(lambda queries: not coordinator.ready, "the coordinator has died")

    with pytest.raises(OSError, match="dies here"):
        await replay_and_die()
    assert await house.store.query(lambda queries: queries.count_dead()) == 1
    monkeypatch.setattr(SqlTransaction, "remove_dead", remove_dead)
    async with house.coordinator():
        (task,) = await house.tasks("a")
        await house.until(lambda queries: queries.count_dead() == 0, "the letter has gone")
        assert len(await house.store.query(lambda queries: queries.runs(limit=9)[0])) == 1, (
            "published twice, begun once"
        )
        await house.answer(task)


@pytest.mark.parametrize(
    ("letters", "queue", "says"),
    [([], "flowkit.starts", "names dead letters"), ([1], "elsewhere", "no queue of namespace"),
     ([1], "flowkit.tasks.gone", "has no queue")],
)  # fmt: skip
async def test_what_cannot_be_replayed_is_kept_and_said(house, letters, queue, says):
    kept = DeadLetter("rejected", "", queue, b"{}", codec.dumps({}), 1.0)
    await house.store.transact(lambda tx: tx.add_dead([kept]))
    async with house.coordinator():
        await command(house, "replay", letters=letters)
        found = await house.until(lambda queries: len(all := queries.dead(limit=9)) == 2 and all, "the refusal")
        assert (found[0].reason, says in found[0].detail, found[1].id) == ("refused", True, 1), found[0].detail


# Detached


async def test_a_detached_run(house):
    async with house.coordinator():
        await house.start("order", "r", tags={"tenant": "acme"})
        (task,) = await house.tasks("order")
        detached = {"send": {"node": "invoice", "inputs": {"n": 7}, "detached": True}}
        await house.answer(task, [detached], {"ok": True})
        await house.answer(task, [detached], {"ok": True})
        assert (await house.run_ended("r")).status == "succeeded"
        (invoice,) = await house.tasks("invoice")
        assert invoice.inputs == {"n": 7}
        await house.answer(invoice, status="failed", error={"type": "E", "message": ""})
        run = await house.run_ended(invoice.run_id)
        assert (run.parent, run.origin, run.tags, run.status) == ("r", "detached", b'{"tenant":"acme"}', "failed")
        assert (await house.store.query(lambda queries: queries.run("r"))).status == "succeeded"


async def test_a_detached_run_on_real_services(real_house):
    await test_a_detached_run(real_house)

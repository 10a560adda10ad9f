"""Each field of each message with odd values, and at its bounds: both stores keep what the contract allows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from flowkit.broker import Outgoing
from flowkit.wire import messages as wire
from tests.coordinator.house import House
from tests.wire.odd import UUID, Odd, Sample, encode

SHARE = int(os.environ.get("ODD_SHARE", "3"))  # one of so many odd messages is sent; 1: all


def odd(model: type[wire.Message], turn: int) -> Iterator[Odd]:
    """Odd messages of a kind: a part of them, another one for each store."""
    for number, one in enumerate(Sample(model).odd()):
        if number % SHARE == turn % SHARE:
            yield one


async def throw(house: House, exchange: str, bodies: list[bytes]) -> None:
    name = house.topology.name(exchange)
    sent = [Outgoing(name, "a", body, type=f"flowkit.{exchange}", durable=False) for body in bodies]
    assert set(await house.broker.publish(sent)) <= {None}


def starts(turn: int) -> Iterator[dict[str, Any]]:
    for one in odd(wire.Start, turn):
        message = one.message
        if one.place != ("run_id",):
            message["run_id"] = uuid4().hex
        if one.place[0] != "finished" and turn % 2:
            del message["finished"]
        yield message


def commands(turn: int) -> Iterator[dict[str, Any]]:
    for kind, run_id in (("signal", "live"), ("rerun", "done"), ("replay", "live"), ("cancel", "nobody")):
        for one in odd(wire.Command, turn):
            told = {"id": str(uuid4()), "kind": kind, "run_id": run_id}
            yield one.message | {name: value for name, value in told.items() if one.place != (name,)}


async def results(house: House, turn: int) -> list[dict[str, Any]]:
    """Each about a task of its own, which waits for it."""
    made = list(odd(wire.Result, turn))
    await throw(house, "starts", [encode({"node": "probe", "run_id": uuid4().hex}) for _ in made])
    answers = []
    for one, task in zip(made, await house.tasks("probe", len(made)), strict=True):
        told = {"task_id": str(task.task_id), "run_id": task.run_id}
        answers.append(one.message | {name: value for name, value in told.items() if one.place != (name,)})
    return answers


@pytest.mark.parametrize(("either_house", "turn"), [("sqlite", 0), ("postgresql", 1)], indirect=["either_house"])
async def test_whatever_stands_in_a_field_both_stores_go_on(either_house: House, caplog, turn: int) -> None:
    house = either_house
    async with house.coordinator():
        await house.start("live", "live")
        await house.start("done", "done")
        await house.answer((await house.tasks("done"))[0])
        await house.run_ended("done")
        await throw(house, "results", [encode(one) for one in await results(house, turn)])
        await throw(house, "starts", [encode(one) for one in starts(turn)])
        await throw(house, "commands", [encode(one) for one in commands(turn)])
        await throw(house, "logs", [encode(one.message) for one in odd(wire.Log, turn)])
        await throw(house, "workers", [encode(one.message) for one in odd(wire.Worker, turn)])

        await throw(house, "logs", [encode({"ts": 1, "level": "INFO", "message": "last", "run_id": "last"})])
        await throw(house, "workers", [encode({"worker": "last"})])
        await house.start("good", "good")
        (task,) = await house.tasks("good")
        await house.answer(task, [{"wait": {"name": "go", "then": "good"}}])
        await house.publish("commands", "signal", {"id": UUID, "kind": "signal", "run_id": "good", "name": "go"})
        await house.answer((await house.tasks("good"))[0], outputs={"n": 1})
        assert (await house.run_ended("good")).status == "succeeded"
        await house.until(lambda queries: queries.logs(run_id="last"), "the last line")
        await house.until(lambda queries: [one for one in queries.workers(seen_since=0) if one.name == "last"], "last")
        assert await house.store.query(lambda queries: queries.logs()), "what is kept can be read"
    failed = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert not failed, "nothing that the contract allows is too much for the store"

"""The audit of the scenarios reports an end that was not announced, and a refused command without a dead letter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from flowkit.flow import changes as c
from flowkit.flow.state import RunStatus
from flowkit.store import Store, open_store
from flowkit.store.protocol import DeadLetter
from tests.chaos.answers import missing_answers, wait_dead_letters
from tests.contract.stores import begun, write


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{tmp_path}/flowkit.db")
    yield store
    await store.close()


async def test_an_end_is_announced_or_received(store: Store) -> None:
    end = c.EndRun(run_id="r", status=RunStatus.SUCCEEDED, ended_at=1001.0)
    await write(store, [*begun("r")[1], end])
    assert await missing_answers(store, ["r"], wiped=False) == []
    assert await missing_answers(store, [], wiped=False) == [
        "r has ended: its end is not announced, and no client has received it"
    ]
    await store.transact(lambda transaction: transaction.mark_announced([("r", 1001.0)]))
    assert await missing_answers(store, [], wiped=False) == []


async def test_a_refused_command_has_a_dead_letter(store: Store) -> None:
    command = uuid4()
    await write(store, [*begun("r")[1], c.NoteCommand("r", command, "resume", 2.0, "it is running")])
    assert await missing_answers(store, [], wiped=False) == [
        "r: resume was refused (it is running), and there is no dead letter"
    ]
    assert await missing_answers(store, [], wiped=True) == []
    assert await wait_dead_letters(store, [command], 0) == [
        f"command {command} had to be refused, and has no dead letter"
    ]
    body = json.dumps({"v": 1, "id": str(command), "kind": "resume", "run_id": "r"}).encode()
    letter = DeadLetter("refused", "it is running", "commands", body, b"{}", 3.0, "r")
    await store.transact(lambda transaction: transaction.add_dead([letter]))
    assert await missing_answers(store, [], wiped=False) == []
    assert await wait_dead_letters(store, [command], 10) == []

"""Cancelled attempts: who is told, and when nobody can have one any more."""

from __future__ import annotations

from uuid import UUID

import pytest

from flowkit.flow import cancelling
from flowkit.flow.changes import Tell
from flowkit.flow.events import AttemptsCancelled
from flowkit.wire import messages as wire


def told(count: int, grace: float = 0) -> list[wire.Control]:
    attempts = tuple((UUID(int=number), number + 1) for number in range(count))
    changes = list(cancelling.cancelled(AttemptsCancelled("r", attempts, grace)))
    assert all(isinstance(change, Tell) for change in changes)
    return [change.control for change in changes]


def test_one_attempt_is_told_as_older_workers_know_it():
    assert told(1, 30) == [
        wire.Control(kind="cancel", run_id="r", task_id=UUID(int=0), attempt=1, grace=30),
    ]
    assert told(1)[0].model_fields_set == {"kind", "run_id", "task_id", "attempt"}


def test_the_attempts_of_a_large_gather_share_few_messages_and_each_is_named_once():
    controls = told(10_000)
    assert len(controls) == 20
    named = [(one.task_id, one.attempt) for one in controls] + [other for one in controls for other in one.others]
    assert sorted(named) == [(UUID(int=number), number + 1) for number in range(10_000)]
    assert max(len(one.encode()) for one in controls) < 50_000
    again = wire.decode(wire.Control, controls[3].encode())
    assert again == controls[3]


@pytest.mark.parametrize(
    ("ready", "consumers", "unheard", "gone"),
    [
        (0, 1, 89, False),  # somebody may say that he has it
        (0, 1, 90, True),
        (0, 0, 90, True),
        (1, 1, 90, False),  # it may be this one
        (1, 1, 1799, False),
        (1, 1, 1800, True),  # other slots keep the queue from being empty
        (1, 0, 1e6, False),  # nobody takes anything
    ],
)
def test_when_nobody_can_have_it(ready, consumers, unheard, gone):
    assert cancelling.is_gone(ready, consumers, unheard, silence=90) is gone


@pytest.mark.parametrize(
    ("ready", "consumers", "unheard", "gone"),
    [
        (1, 0, 89, False),
        (1, 0, 119, False),  # a worker whose clock is behind may begin it yet
        (1, 0, 120, True),
        (1, 1, 120, True),
        (0, 0, 90, True),
    ],
)
def test_what_every_worker_refuses_that_takes_it(ready, consumers, unheard, gone):
    assert cancelling.is_gone(ready, consumers, unheard, silence=90, queue_timeout=30) is gone

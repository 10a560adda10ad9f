"""Commands that come in one batch amount to what they would have been one by one."""

from __future__ import annotations

from uuid import UUID

import pytest

from flowkit.flow.changes import RefuseCommand
from flowkit.flow.events import Commanded
from flowkit.flow.state import RunStatus
from flowkit.wire import messages as wire
from flowkit.wire.items import Wait
from tests.flow.rows import Rows


@pytest.fixture
def rows() -> Rows:
    """A run that failed while one of its branches waited for a signal."""
    rows = Rows()
    rows.start()
    rows.report("0", [Wait("go", then="b"), "c"])
    rows.fail("0.1")
    assert rows.runs["r"].status is RunStatus.FAILED
    return rows


def command(kind: str, number: int, **more: object) -> Commanded:
    return Commanded(wire.Command(id=UUID(int=number), kind=kind, run_id="r", **more))


RETRY = command("retry", 1)
FIRST, SECOND = (command("signal", n, name="go", input={"n": n}) for n in (2, 3))


def test_a_signal_behind_a_retry_ends_the_wait_that_it_opens(rows):
    rows.feed(RETRY, FIRST)
    assert rows.inputs("0.0.0")["signal"] == {"n": 2}
    assert not rows.signals.get(("r", "go"))
    assert rows.outstanding() == ["0.0.0", "0.1"]


def test_further_signals_keep_their_order_and_each_is_applied_once(rows):
    rows.feed(RETRY, FIRST, SECOND, FIRST, RETRY)
    assert rows.inputs("0.0.0")["signal"] == {"n": 2}
    assert [signal.input for signal in rows.signals["r", "go"]] == [b'{"n":3}']


def test_a_signal_before_the_retry_is_refused(rows):
    changes = rows.feed(FIRST, RETRY)
    assert [change.id for change in changes if isinstance(change, RefuseCommand)] == [UUID(int=2)]
    assert rows.outstanding() == ["0.0", "0.1"]


def test_pausing_and_resuming_in_one_batch_leaves_nothing_held():
    rows = Rows()
    rows.start()
    rows.report("0", ["b", "c"])
    rows.feed(command("pause", 1), rows.result("0.0", ["d"]), command("resume", 2))
    assert {rows.at(path).status for path in rows.outstanding()} == {"queued"}


def test_a_cancel_behind_a_retry_cancels():
    rows = Rows()
    rows.start()
    rows.fail("0")
    rows.feed(RETRY, command("cancel", 2))
    assert rows.runs["r"].status is RunStatus.CANCELLED
    assert rows.outstanding() == []

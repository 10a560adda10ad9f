"""Every reason why a task is not done, and what one is told to do."""

from __future__ import annotations

import pytest

from flowkit.flow.explain import Around, Kind, Stuck, explain, span
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import OUTSTANDING, TaskStatus

NOW = 10_000.0
WORKER = "flowkit worker --node ship"
COORDINATOR = "no coordinator is at work: flowkit coordinator"


def stuck(status: str, **fields) -> Stuck:
    return Stuck(run_id="r", node="ship", status=TaskStatus(status), **fields)


BEGAN = "worker w1 began it 12 min 00 s ago"
UNKNOWN = "for 1 min 00 s. No worker has ever announced this node: is its name right?"
RESUME = "flowkit runs resume r"
CASES = [
    (
        "its queue is full, and nobody empties it",
        stuck("queued"),
        Around(workers=0, consumers=0, ready=3, coordinators=1, refusal="it is full"),
        (Kind.REFUSED,
         "not sent: queue of node 'ship' with 3 ready refuses tasks, it is full, and no worker takes any", WORKER),
    ),
    (
        "its queue is full although somebody empties it",
        stuck("queued"),
        Around(workers=1, consumers=1, ready=3, coordinators=1, refusal="it is full"),
        (Kind.REFUSED, "not sent: queue of node 'ship' with 3 ready refuses tasks, it is full; it is tried again",
         f"a larger max-length in its policy, or more workers: {WORKER}"),
    ),
    (
        "the broker is low on memory",
        stuck("queued"),
        Around(coordinators=1, blocked="low on memory"),
        (Kind.REFUSED, "not sent: the broker accepts no messages, low on memory",
         "free memory or disk on its machine: rabbitmqctl status"),
    ),
    (
        "its queue was full when there was a coordinator",
        stuck("queued"),
        Around(coordinators=0, refusal="it is full"),
        (Kind.UNSENT, "not sent yet", COORDINATOR),
    ),
    (
        "its time has come, and its run is paused",
        stuck("held", held_for="retry", due=NOW - 60, error="OSError: down", paused=True),
        Around(coordinators=1),
        (Kind.RETRYING, "retry due since 1 min 00 s; the last attempt failed: OSError: down", RESUME),
    ),
    (
        "its time has come, its run is paused, and nobody is there either",
        stuck("held", held_for="delay", due=NOW - 60, paused=True),
        Around(coordinators=0),
        (Kind.DELAYED, "delayed, due since 1 min 00 s", RESUME),
    ),
    (
        "nobody signalled in time, and its run is paused",
        stuck("waiting", signal="go", due=NOW - 60, paused=True),
        Around(coordinators=1),
        (Kind.WAITING, "waits for signal 'go', whose time ended 1 min 00 s ago", RESUME),
    ),
    (
        "it handles a failure, and nobody has ever heard of its node",
        stuck("queued", sent_at=NOW - 60, handles="pay: EOFError"),
        Around(workers=0, announced=False, consumers=0, coordinators=1),
        (
            Kind.NO_WORKER,
            f"handles the failure of pay: EOFError. Now: no worker for node 'ship': it waits in its queue {UNKNOWN}",
            WORKER,
        ),
    ),
    (
        "its lease is all that is left of a long task",
        stuck("running", sent_at=NOW - 900, started_at=NOW - 720, worker="w1", leased_until=NOW + 41),
        Around(workers=1, ready=0, consumers=1, coordinators=1),
        (Kind.SILENT, f"{BEGAN} and does not list it any more: its lease ends in 41 s, then it is sent again", ""),
    ),
    (
        "its node's limit is reached",
        stuck("held", held_for="limit", slot="ship customer=7"),
        Around(coordinators=1, limit=NodeLimit(limit=2, rate="5/s", key="customer"), slot_out=2, slot_held=9),
        (Kind.LIMIT, "held by the limit 2 and rate 5/s of node 'ship' for customer=7: 2 out, 9 held",
         "flowkit runs list, for what is under way"),
    ),
    (
        "its node's limit is reached by what is cancelled",
        stuck("held", held_for="limit", slot="ship"),
        Around(workers=1, coordinators=1, limit=NodeLimit(limit=2), slot_out=2, slot_ending=1, slot_held=9),
        (Kind.LIMIT, "held by the limit 2 of node 'ship': 2 out (1 of them cancelled and not ended yet), 9 held",
         "flowkit runs list, for what is under way"),
    ),
    (
        "what is out has nobody to run it",
        stuck("held", held_for="limit", slot="ship"),
        Around(workers=0, consumers=0, coordinators=1, limit=NodeLimit(limit=2), slot_out=2, slot_held=1),
        (Kind.LIMIT, "held by the limit 2 of node 'ship': 2 out, 1 held, and no worker for it", WORKER),
    ),
    (
        "its rate lets it go soon",
        stuck("held", held_for="limit", slot="ship"),
        Around(workers=1, coordinators=1, limit=NodeLimit(rate="5/min"), slot_out=2, slot_held=1),
        (Kind.LIMIT, "held by the rate 5/min of node 'ship': 2 out, 1 held", ""),
    ),
    (
        "nobody lets it go",
        stuck("held", held_for="limit", slot="ship"),
        Around(coordinators=0, slot_out=0, slot_held=1),
        (Kind.LIMIT, "held by a limit that node 'ship' has no more: 0 out, 1 held", COORDINATOR),
    ),
    (
        "its lease is over, and nobody is there to see it",
        stuck("running", sent_at=NOW - 900, started_at=NOW - 720, worker="w1", leased_until=NOW - 1),
        Around(workers=0, coordinators=0),
        (Kind.SILENT, f"{BEGAN} and does not list it any more: its lease ends soon, then it is sent again",
         COORDINATOR),
    ),
    (
        "a leased task that runs",
        stuck("running", sent_at=NOW - 900, started_at=NOW - 720, worker="w1", leased_until=NOW + 41),
        Around(workers=1, taken_by="w1", taken_since=NOW - 720),
        (Kind.RUNNING, "running on worker w1 for 12 min 00 s", "flowkit logs r -f"),
    ),
    (
        "nobody takes from its queue",
        stuck("queued", sent_at=NOW - 72),
        Around(workers=0, ready=3, consumers=0),
        (Kind.NO_WORKER, "no worker for node 'ship': it waits in its queue with 3 ready for 1 min 12 s", WORKER),
    ),
    (
        "the broker could not be asked",
        stuck("queued", sent_at=NOW - 5),
        Around(workers=0),
        (Kind.NO_WORKER, "no worker for node 'ship': it waits in its queue for 5 s", WORKER),
    ),
    (
        "workers are busy",
        stuck("queued", sent_at=NOW - 5),
        Around(workers=2, ready=1_200, consumers=2),
        (Kind.QUEUED, "waiting in its queue with 1,200 ready and 2 workers for 5 s", f"more workers: {WORKER}"),
    ),
    (
        "a foreign worker consumes and announces nothing",
        stuck("queued", sent_at=NOW - 5),
        Around(workers=0, ready=1, consumers=1),
        (Kind.QUEUED, "waiting in its queue with 1 ready and 1 worker for 5 s", f"more workers: {WORKER}"),
    ),
    (
        "the broker could not be asked, and there is a worker",
        stuck("queued", sent_at=NOW - 5),
        Around(workers=1),
        (Kind.QUEUED, "waiting in its queue with 1 worker for 5 s", ""),
    ),
    (
        "no longer in its queue, and nobody has listed it",
        stuck("queued", sent_at=NOW - 2),
        Around(workers=1, ready=0, consumers=1),
        (Kind.TAKEN, "taken from its queue by a worker that has not listed it yet; sent 2 s ago", "flowkit logs r -f"),
    ),
    ("not sent yet", stuck("queued"), Around(coordinators=1), (Kind.UNSENT, "not sent yet", "")),
    (
        "released before its run was paused",
        stuck("queued", paused=True),
        Around(coordinators=1),
        (Kind.PAUSED, "not sent yet, or on its way: the run is paused", RESUME),
    ),
    ("nobody sends it", stuck("queued"), Around(coordinators=0), (Kind.UNSENT, "not sent yet", COORDINATOR)),
    (
        "taken and not begun",
        stuck("queued", sent_at=NOW - 5),
        Around(workers=1, taken_by="w1"),
        (Kind.TAKEN, "worker w1 has taken it and not begun: it is busy with others", f"more workers: {WORKER}"),
    ),
    (
        "running, by the worker's own list",
        stuck("queued", sent_at=NOW - 5),
        Around(workers=1, taken_by="w1", taken_since=NOW - 4),
        (Kind.RUNNING, "running on worker w1 for 4 s", "flowkit logs r -f"),
    ),
    (
        "begun by a worker that is gone",
        stuck("running", worker="w1", started_at=NOW - 4),
        Around(workers=0, consumers=0),
        (Kind.SILENT, "worker w1 began it 4 s ago and is gone; no worker for node 'ship'", WORKER),
    ),
    (
        "begun by a worker that does not list it",
        stuck("running", worker="w1", started_at=NOW - 4),
        Around(workers=1, consumers=1),
        (Kind.SILENT, "worker w1 began it 4 s ago and does not list it any more; it is sent again when nobody answers",
         ""),
    ),
    (
        "begun by a foreign worker",
        stuck("running"),
        Around(workers=0, consumers=1),
        (Kind.RUNNING, "worker unknown began it and announces nothing", "flowkit logs r -f"),
    ),
    (
        "delayed",
        stuck("held", held_for="delay", due=NOW + 3_725),
        Around(coordinators=1),
        (Kind.DELAYED, "delayed, to be sent in 1 h 02 min", ""),
    ),
    (
        "delayed, and nobody releases it",
        stuck("held", held_for="delay", due=NOW - 30),
        Around(),
        (Kind.DELAYED, "delayed, due since 30 s", COORDINATOR),
    ),
    (
        "retry",
        stuck("held", held_for="retry", due=NOW + 42, error="TimeoutError: too slow"),
        Around(coordinators=1),
        (Kind.RETRYING, "retry in 42 s; the last attempt failed: TimeoutError: too slow", ""),
    ),
    (
        "paused",
        stuck("held", held_for="paused"),
        Around(),
        (Kind.PAUSED, "held: the run is paused", "flowkit runs resume r"),
    ),
    (
        "enough branches are under way",
        stuck("held", held_for="max_concurrency"),
        Around(),
        (Kind.WINDOW, "held by max_concurrency: it goes on when another branch of its Gather ends", ""),
    ),
    (
        "held for a reason of tomorrow",
        stuck("held", held_for="moon"),
        Around(),
        (Kind.HELD, "held for moon", ""),
    ),
    (
        "waits for a signal for ever",
        stuck("waiting", signal="approval"),
        Around(coordinators=0),
        (Kind.WAITING, "waits for signal 'approval'", "flowkit runs signal r approval"),
    ),
    (
        "waits for a signal for a while",
        stuck("waiting", signal="it's time", due=NOW + 3 * 86_400),
        Around(coordinators=1),
        (Kind.WAITING, 'waits for signal "it\'s time", for 3 d 0 h more', "flowkit runs signal r 'it'\"'\"'s time'"),
    ),
    (
        "waited long enough, and nobody says so",
        stuck("waiting", signal="go", due=NOW - 60),
        Around(coordinators=0),
        (Kind.WAITING, "waits for signal 'go', whose time ended 1 min 00 s ago", COORDINATOR),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("task", "around", "told"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_reason(task, around, told):
    reason = explain(task, around, NOW)
    assert (reason.kind, reason.text, reason.hint) == told


@pytest.mark.parametrize("status", sorted(OUTSTANDING))
def test_there_is_a_reason_for_a_task_of_which_nothing_else_is_known(status):
    assert explain(stuck(status), Around(), NOW).text


def test_every_kind_is_in_the_table():
    assert {told[0] for *_, told in CASES} == set(Kind)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3_600, "1 h 00 min"), (2 * 86_400, "2 d 0 h")],
)
def test_spans(seconds, text):
    assert span(seconds) == text

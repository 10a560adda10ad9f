"""What an author's test can do with a simulation."""

from __future__ import annotations

import asyncio
import random
import socketserver
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, wait_fixed

from flowkit import Gather, Node, Send, Wait
from flowkit.errors import InvalidNode, InvalidSchedule, NodeNotFound, RunFailed, UsageError
from flowkit.flow.limits import Limits
from flowkit.testing import Faults, Simulation
from tests.simulation.workflow import NODES

WORKERS = Path(__file__).parents[2] / "workers"
CLAIM = {"who": "ann", "amount": 480}


def test_three_days_pass_at_once():
    began = time.monotonic()
    with Simulation(WORKERS) as sim:
        run = sim.start("expense", CLAIM)
        sim.advance(days=2, hours=23)
        assert (run.status, sim.calls("escalate")) == ("running", [])
        sim.advance(timedelta(hours=1))
        assert run.outputs() == {"paid": 0, "escalated_to": "head of the house"}
        assert datetime(2030, 1, 4, tzinfo=UTC) <= sim.now < datetime(2030, 1, 4, 0, 0, 2, tzinfo=UTC)
    assert time.monotonic() - began < 5


def test_a_loop_goes_on_for_longer_than_its_limits_and_keeps_little():
    poll = Node("poll")

    @poll.main
    async def main():
        left = poll.get_inputs()["left"]
        return ([Send("poll", {"left": left - 1}, delay=5)], {}, "") if left else ([], {"polled": True}, "")

    with Simulation(poll, limits=Limits(max_depth=20, max_tasks=60, max_history=25)) as sim:
        run = sim.start("poll", {"left": 75})
        assert run.outputs() == {"polled": True}
        assert len(run.tasks) < 40
        sim.audit()


def test_outputs_passes_as_much_time_as_it_takes():
    with Simulation(WORKERS) as sim:
        run = sim.start("expense", CLAIM)
        assert run.outputs()["escalated_to"]
        assert sim.now.day == 4


def test_a_signal_ends_the_wait():
    with Simulation(WORKERS) as sim:
        run = sim.start("expense", CLAIM)
        sim.advance(days=1)
        run.signal("approval", {"approved": True, "by": "bob"})
        assert run.outputs() == {"paid": 480, "approved_by": "bob"}
        (call,) = sim.calls("pay")
        assert call.inputs["signal"] == {"approved": True, "by": "bob"}
        assert (call.run_id, call.attempt, call.outputs) == ("run-1", 1, {"paid": 480, "approved_by": "bob"})
        assert call.at.day == 2
        assert [line.message for line in run.logs()][-1] == "paying 480.00 to ann"


def test_retries_wait_as_long_as_they_say(make):
    def main(node):
        if sim.now.hour < 5:
            raise OSError("not yet")
        return [], {"hour": sim.now.hour}, "done"

    flaky = make("flaky", main, stop=stop_after_attempt(9), wait=wait_fixed(3600))
    with Simulation(flaky) as sim:
        assert sim.start("flaky").outputs() == {"hour": 5}
        assert [call.attempt for call in sim.calls()] == [1, 2, 3, 4, 5, 6]
        assert isinstance(sim.calls()[0].error, OSError)
        assert sim.ran("flaky") == 1
        sim.audit()


def test_an_error_in_a_group_is_retried_and_then_given_to_on_error():
    fetch, complain = Node("fetch", stop=stop_after_attempt(2), on_error="complain"), Node("complain")

    async def fail():
        raise OSError("no route")

    @fetch.main
    async def fetch_main():
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    @complain.main
    async def complain_main():
        return [], complain.get_inputs()["error"], ""

    with Simulation(fetch, complain) as sim:
        outputs = sim.start("fetch").outputs()
        assert (outputs["type"], outputs["message"]) == (
            "ExceptionGroup", "unhandled errors in a TaskGroup (1 sub-exception): OSError: no route",
        )  # fmt: skip
        assert "OSError: no route" in outputs["traceback"]
        assert len(sim.calls("fetch")) == 2
        sim.audit()


@pytest.mark.parametrize("ends", [SystemExit(3), KeyboardInterrupt()])
def test_a_task_beside_main_that_exits_ends_itself_and_not_the_test(make, ends, caplog):
    async def exits():
        raise ends

    async def main(node):
        asyncio.create_task(exits())  # noqa: RUF006 - nobody waits for it
        await asyncio.sleep(1)
        return [], {"on": True}, ""

    with Simulation(make("work", main)) as sim:
        assert sim.start("work").outputs() == {"on": True}
    assert "which ends that task alone" in caplog.text


def test_threads_of_executors_have_the_context_of_their_task():
    node = Node("work")

    @node.main
    async def main():
        return [], await asyncio.get_running_loop().run_in_executor(None, node.get_inputs), ""

    with Simulation(node) as sim:
        assert sim.start("work", {"n": 3}).outputs() == {"n": 3}


def test_explain_tells_why_it_is_tried_again(make):
    async def main(node):
        raise OSError("no route")

    with Simulation(make("flaky", main, wait=wait_fixed(3600))) as sim:
        run = sim.start("flaky")
        sim.rest()
        (line,) = run.explain()
        assert line.startswith("0 flaky: retry in ")
        assert line.endswith("; the last attempt failed: OSError: no route")


def test_authors_pauses_and_timeouts_pass_at_once(make):
    async def main(node):
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return [], {"seconds": round(loop.time() - before)}, "woke up"

    began = time.monotonic()
    with Simulation(make("sleeper", main)) as sim:
        assert sim.start("sleeper").outputs() == {"seconds": 660}
    assert time.monotonic() - began < 20


def test_a_main_that_takes_longer_than_its_lease_keeps_it(make):
    async def main(node):
        await asyncio.sleep(900)
        return [], {}, "done"

    with Simulation(make("long", main)) as sim:
        sim.start("long").outputs()
        assert len(sim.calls()) == 1


def test_what_goes_to_a_thread_is_waited_for_in_real_time(make):
    async def main(node):
        before = asyncio.get_running_loop().time()
        await asyncio.to_thread(time.sleep, 0.7)  # longer than the simulation waits before others go on
        return [], {"passed": asyncio.get_running_loop().time() - before}, "done"

    with Simulation(make("thread", main)) as sim:
        assert sim.start("thread").outputs()["passed"] < 0.5


def test_a_thread_may_need_the_loop(make):
    async def main(node):
        loop = asyncio.get_running_loop()
        asked = lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(1, "answer"), loop).result()  # noqa: E731
        return [], {"got": await asyncio.to_thread(asked)}, "done"

    with Simulation(make("thread", main)) as sim:
        assert sim.start("thread").outputs() == {"got": "answer"}


def test_a_socket_is_waited_for_in_real_time(make):
    class Slow(socketserver.StreamRequestHandler):
        def handle(self):
            time.sleep(0.2)
            self.wfile.write(b"hello\n")

    async def main(node):
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(*server.server_address)
            line = await reader.readline()
            writer.close()
        return [], {"line": line.decode()}, "done"

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            with Simulation(make("asks", main)) as sim:
                assert sim.start("asks").outputs() == {"line": "hello\n"}
        finally:
            server.shutdown()


async def test_inside_a_test_that_is_async():
    with Simulation(WORKERS) as sim:
        assert sim.start("add", {"a": 1, "b": 2}).outputs() == {"result": 3}


def test_a_test_puts_its_own_node_in_place_of_one(make):
    pay = make("pay", lambda node: ([], {"instead": True}, "not really"))
    with Simulation(WORKERS, pay) as sim:
        assert sim.start("expense", {"who": "ann", "amount": 5}).outputs() == {"instead": True}


def test_one_file(tmp_path):
    with Simulation(WORKERS / "add.py") as sim:
        assert sim.start("add", {"a": 1, "b": 2}).outputs() == {"result": 3}


def test_a_run_that_never_ends_says_what_it_waits_for(make):
    waits = make("waits", lambda node: ([Wait("approval", then="waits")], {}, "waiting"))
    with Simulation(waits) as sim:
        run = sim.start("waits")
        with pytest.raises(
            AssertionError, match=r"nothing is left to happen:\n  0\.0 waits: waits for signal 'approval'"
        ):
            run.outputs()
        with pytest.raises(AssertionError, match="nothing is left to happen"):
            sim.until(lambda: run.ended)


def test_a_node_that_nobody_has(make):
    calls = make("calls", lambda node: (["absent"], {}, "go on"))
    with Simulation(calls) as sim:
        run = sim.start("calls")
        with pytest.raises(AssertionError, match=r"0\.0 absent: no worker for node 'absent'"):
            run.outputs()


def test_a_run_that_fails(make):
    def main(node):
        raise ValueError("no good")

    with Simulation(make("fails", main)) as sim:
        run = sim.start("fails")
        with pytest.raises(RunFailed, match="ValueError: no good"):
            run.outputs()
        assert (run.status, run.end().status) == ("failed", "failed")


def test_control_of_a_run(make):
    with Simulation(WORKERS) as sim:
        run = sim.start("expense", CLAIM)
        sim.rest()
        run.pause()
        sim.rest()
        assert run.status == "paused"
        run.resume()
        run.cancel()
        assert run.end().status == "cancelled"


def test_delays_deadlines_and_gathers(make):
    later = make("later", lambda node: ([], {"at": sim.now.hour}, "done"))
    sends = [Send("later", {}, delay=hours * 3600) for hours in (3, 1, 2)]
    opens = make("opens", lambda node: ([Gather(sends, then="joins")], {}, "spread"))
    joins = make("joins", lambda node: ([], node.get_inputs(), "joined"))
    with Simulation(later, opens, joins) as sim:
        assert sim.start("opens", delay=3600).outputs() == {"results": [{"at": 4}, {"at": 2}, {"at": 3}]}
        late = sim.start("opens", deadline=60)
        with pytest.raises(RunFailed, match="within 60 s"):
            late.outputs()


def test_a_month_of_a_schedule(make):
    nightly = make("nightly", lambda node: ([], {"night": sim.now.day, **node.get_inputs()}, "done"))
    with Simulation(nightly) as sim:
        sim.schedule("nights", cron="30 2 * * *", node="nightly", inputs={"full": True}, timezone="Europe/Berlin")
        sim.advance(days=30)
        assert [run.outputs() for run in sim.runs] == [{"night": day, "full": True} for day in range(1, 31)]
        assert {(call.at.hour, call.at.minute) for call in sim.calls()} == {(1, 30)}
        assert sim.runs[0].id == "nights-20300101T013000Z"
        with pytest.raises(InvalidSchedule):
            sim.schedule("nights", cron="61 * * * *", node="nightly")


def test_detached_runs_are_runs_of_their_own(make):
    begins = make("begins", lambda node: ([Send("beside", {"x": 1}, detached=True)], {}, "begun"))
    beside = make("beside", lambda node: ([], node.get_inputs(), "done"))
    with Simulation(begins, beside) as sim:
        sim.start("begins").outputs()
        sim.rest()
        assert [run.outputs() for run in sim.runs] == [{}, {"x": 1}]


def test_limits_count_from_the_first_task_on(make):
    running = most = 0

    async def main(node):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return [], {}, "done"

    few = make("few", main, limit=2)
    opens = make("opens", lambda node: ([Gather([Send("few")] * 7, then="joins")], {}, "spread"))
    joins = make("joins", lambda node: ([], {}, "joined"))
    with Simulation(few, opens, joins, workers=2) as sim:
        sim.start("opens").outputs()
        assert (most, sim.ran("few")) == (2, 7)


def test_time_stands_still_between_the_calls(make):
    quick = make("quick", lambda node: ([], {}, "done"))
    with Simulation(quick) as sim:
        before = sim.now
        time.sleep(0.01)
        assert sim.now == before
        sim.until(lambda: sim.now >= before)
        with pytest.raises(UsageError, match="forward only"):
            sim.advance(seconds=-1)


def test_a_test_that_fails_says_how_to_play_it_again(make):
    def fail():
        with Simulation(make("quick", lambda node: ([], {}, "done")), seed=7, faults=Faults(crash=0.5)):
            raise AssertionError("oh")

    with pytest.raises(AssertionError, match="oh") as caught:
        fail()
    assert caught.value.__notes__ == ["To play it again: Simulation(…, seed=7, faults=Faults(crash=0.5))"]


def test_chance_of_authors_follows_from_the_seed(make):
    dice = make("dice", lambda node: ([], {"eyes": random.randint(1, 1_000_000)}, "rolled"))

    def rolled(seed):
        with Simulation(dice, seed=seed) as sim:
            return sim.start("dice").outputs()["eyes"]

    before = random.getstate()
    assert rolled(1) == rolled(1) != rolled(2)
    assert random.getstate() == before


def test_what_makes_no_simulation(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(UsageError, match="needs nodes"):
        Simulation()
    with pytest.raises(NodeNotFound):
        Simulation(tmp_path / "absent.py")
    with pytest.raises(InvalidNode, match="ZeroDivisionError"):
        Simulation(tmp_path)
    with pytest.raises(InvalidNode, match="registers no main"):
        Simulation(Node("empty"))
    with pytest.raises(UsageError, match="inside 'with"):
        Simulation(WORKERS).start("add")
    with pytest.raises(UsageError, match="chance from 0 to 1"):
        Faults(crash=2)


def test_a_bug_in_a_process_fails_the_test(make, monkeypatch):
    from flowkit.coordinator.relay import Timers

    async def broken(self):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Timers, "look", broken)
    with pytest.raises(ZeroDivisionError), Simulation(make("quick", lambda node: ([], {}, "done"))) as sim:
        sim.advance(seconds=1)


def test_the_walls_clock_may_jump():
    with Simulation(*NODES, faults=Faults(clock=0.2, most=20)) as sim:
        begun = sim.now
        run = sim.start("begin", {"count": 5})
        assert run.outputs()
        assert sim.happened == 20
        assert all(line.endswith("! clock") for line in sim.trace if "!" in line)
        assert sim.now != begun
        sim.audit()

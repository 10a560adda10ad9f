"""Coordinator, worker and starter as processes on a real RabbitMQ: the three terminals."""

from __future__ import annotations

import json
import signal
import socketserver
import subprocess
import sys
import threading

import pytest

SLOW = """
import asyncio
from flowkit import Logger, Node

node = Node("slow")
logger = Logger(node)

@node.main
async def main():
    await logger.info("begun")
    await logger.flush()
    await asyncio.sleep(node.get_inputs()["seconds"])
    return [], {}, "done"

node.run()
"""


@pytest.fixture
def system(rabbitmq_url, namespace, monkeypatch, process):
    """Begin services in this namespace; each is ready when it says so in its log."""
    monkeypatch.setenv("FLOWKIT_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("FLOWKIT_NAMESPACE", namespace)

    def begin(*arguments: str, says: str):
        service = process(*arguments)
        for line in service.stderr:
            if says in line:
                return service
        raise AssertionError(f"{arguments} ended with {service.wait()}")

    return begin


@pytest.fixture
def coordinator(system):
    return system("coordinator", says="is ready")


def cli(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flowkit.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_the_three_terminals(system, coordinator, flowkit):
    worker = system("worker", "--node", "add", says="takes tasks of add")

    started = cli("start", "add", "--input", '{"a": 1, "b": 2}', "--id", "first", "--tag", "k=v", "--wait")
    assert (started.returncode, started.stdout) == (0, 'first\n{"sum": 3}\n')
    again = cli("start", "add", "-F", "a=1", "-F", "b=2", "--id", "first", "--wait")
    assert (again.returncode, again.stdout) == (0, 'first\n{"sum": 3}\n')
    conflict = cli("start", "add", "-F", "a=9", "-F", "b=2", "--id", "first", "--wait")
    assert (conflict.returncode, conflict.stdout) == (6, "first\n")
    failed = cli("start", "add", "-F", "a=1", "--wait")
    assert failed.returncode == 1
    assert "failed: KeyError: 'b'" in failed.stderr

    shown = flowkit("runs", "show", "first", "--json").json
    assert (shown["status"], shown["outputs"], shown["tags"]) == ("succeeded", {"sum": 3}, {"k": "v"})
    lines = [json.loads(line) for line in flowkit("logs", "--json").out.splitlines()]
    assert [line["message"] for line in lines] == ["adding", "adding"]
    assert [json.loads(line)["run_id"] for line in flowkit("logs", "-n", "1", "--json").out.splitlines()] != ["first"]
    assert flowkit("nodes", "--json").json["nodes"][0]["workers"] == 1
    assert flowkit("health", "--live").code == flowkit("health", "--ready").code == 0
    assert flowkit("doctor", "--json").json["ok"]
    audited = flowkit("doctor", "--audit", "--json").json["checks"][-1]
    assert (audited["name"], audited["ok"]) == ("audit", True)
    assert audited["found"] == "1 failed, 1 succeeded; 2 tasks; dead letters: 1 conflict; 0 problems"

    for service in (worker, coordinator):
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=20) == 0
    assert flowkit("health", "--live").code == 1


def test_logs_of_a_run_are_followed_without_gap_or_double(system, coordinator, process, folder):
    (folder / "workers" / "slow.py").write_text(SLOW)
    system("worker", "--node", "slow", says="takes tasks")
    assert cli("start", "slow", "--id", "r1", "-F", "seconds=0", "--wait").returncode == 0
    following = process("logs", "r1", "-f", "--json")
    assert json.loads(following.stdout.readline())["message"] == "begun"
    for other in ("r2", "r1"):
        assert cli("start", "slow", "--id", other, "-F", "seconds=0").returncode == 0
    following.send_signal(signal.SIGINT)
    rest, _ = following.communicate(timeout=20)
    assert (following.returncode, rest) == (130, "")


def test_waiting_has_an_end(system, coordinator):
    waited = cli("start", "nobody", "--wait", "--timeout", "0.2s")
    assert waited.returncode == 5
    assert "has not ended within 0.2 s; it goes on" in waited.stderr


@pytest.mark.parametrize(("drain", "signals", "code"), [("20", 1, 0), ("0.1", 1, 1), ("20", 2, 1)])
def test_a_worker_drains_at_the_first_signal_and_stops_at_the_second(
    system, coordinator, process, folder, drain, signals, code
):
    (folder / "workers" / "slow.py").write_text(SLOW)
    worker = system("worker", "--node", "slow", "--drain-timeout", drain, says="takes tasks")
    tail = process("logs", "-f", "--json")
    seconds = 1 if code == 0 else 30
    assert cli("start", "slow", "-F", f"seconds={seconds}").returncode == 0
    assert json.loads(tail.stdout.readline())["message"] == "begun"
    worker.send_signal(signal.SIGTERM)
    if signals == 2:
        assert "finishing" in worker.stderr.readline()
        worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=15) == code


def test_a_second_worker_of_a_name_says_who_has_it(system):
    """As does one of several; and when the first one is killed, the next one gets the name at once."""
    first = system("worker", "--node", "add", "--name", "w-1", says="takes tasks")
    for arguments in (("--name", "w-1"), ("--name", "w", "--processes", "2")):
        second = cli("worker", "--node", "add", *arguments)
        assert second.returncode == 6
        assert f"worker name 'w-1' is in use: another worker has it (process {first.pid} on " in second.stderr
        assert "Traceback" not in second.stderr
    first.kill()
    first.wait()
    system("worker", "--node", "add", "--name", "w-1", says="takes tasks")


def test_a_second_coordinator_on_one_file_is_refused(coordinator):
    second = cli("coordinator")
    assert second.returncode == 6
    assert "another coordinator holds its lock" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("verb", [("coordinator",), ("worker", "--node", "add"), ("start", "add")])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("guest:guest@", "guest:canary@"), "login refused"),
        (lambda url: f"{url}nosuch", "nosuch not found"),
    ],
    ids=["password", "virtual host"],
)
def test_a_login_that_is_refused_exits_3_at_once(rabbitmq_url, verb, change, says):
    said = cli(*verb, "--broker", change(rabbitmq_url))
    assert said.returncode == 3
    assert says in said.stderr
    assert "Traceback" not in said.stderr
    assert "canary" not in said.stderr + said.stdout


def test_a_port_that_is_no_amqp():
    class Http(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(8)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Http) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        said = cli("start", "add", "--broker", f"amqp://guest:guest@127.0.0.1:{server.server_address[1]}/")
        server.shutdown()
    assert said.returncode == 3
    assert "something else than AMQP answers there" in said.stderr
    assert said.stderr.count("\n") == 1


def test_doctor_says_how_to_repair_a_broker_without_coordinator(system, flowkit):
    said = flowkit("doctor")
    assert said.code == 1
    assert "✖ topology: missing: " in said.out
    assert "→ start a coordinator" in said.out


LEFT_BEHIND = """
import sys, threading, time
from flowkit.cli import app
from flowkit.cli.services import lifecycle
from flowkit.errors import BrokerUnreachable

def serve(settings, work, **of_one_among_several):
    threading.Thread(target=time.sleep, args=(600,)).start()  # as asyncio.to_thread leaves one behind
    raise ExceptionGroup("of the task group around it", [BrokerUnreachable("amqp://there", "the login is refused")])

lifecycle.serve = serve
sys.argv = ["flowkit", "worker", "--node", sys.argv[1]]
app.main()
"""


def test_a_worker_that_cannot_go_on_ends_although_a_thread_of_a_node_goes_on(tmp_path):
    node = tmp_path / "idle.py"
    node.write_text(
        "from flowkit import Node\n\nnode = Node()\n\n@node.main\nasync def main():\n    return [], {}, ''\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND, str(node)], capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == 3
    assert "flowkit: broker amqp://there: the login is refused" in ended.stderr


HELD_AT_THE_END = """
import re, sys
from flowkit.cli import app
from flowkit.cli.services import lifecycle
from flowkit.cli.services import worker
from flowkit.errors import BrokerUnreachable
from flowkit.worker import process_exit

def serve(settings, work, **rest):
    raise BrokerUnreachable("amqp://there", "the login is refused")

def leave_if_busy(code, tell):
    re.match("(a+)+$", "a" * 60 + "b")  # as a thread of a node may, for which nothing of Python runs meanwhile

lifecycle.serve, process_exit.leave_if_busy, worker.HELD = serve, leave_if_busy, 0.5
sys.argv = ["flowkit", "worker", "--node", sys.argv[1]]
app.main()
"""


def test_a_worker_that_cannot_go_on_ends_although_c_code_holds_the_lock(tmp_path):
    node = tmp_path / "idle.py"
    node.write_text(
        "from flowkit import Node\n\nnode = Node()\n\n@node.main\nasync def main():\n    return [], {}, ''\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", HELD_AT_THE_END, str(node)], capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == 1
    assert "flowkit: broker amqp://there: the login is refused" in ended.stderr
    assert "in leave_if_busy" in ended.stderr, "the stacks of its threads"

"""A node file as a script."""

import asyncio
import json
import logging
import subprocess
import sys
from uuid import uuid4

import pytest

from flowkit import oneshot
from flowkit.broker.memory import MemoryBroker
from flowkit.errors import BrokerUnreachable
from flowkit.log import Logger
from flowkit.node import Node
from flowkit.wire.messages import Log, Start, decode, decode_many
from flowkit.wire.topology import Topology

ADD = """
import logging
from flowkit import Node, Permanent
node = Node()
@node.main
async def main():
    print("said by main")
    logging.info("so said logging")
    if node.get_inputs().get("fail"):
        raise Permanent("as asked")
    return ["next"], {"id": str(node.get_id())}, "Success"
node.run()
"""
ID = "123e4567-e89b-42d3-a456-426614174000"


@pytest.fixture
def script(tmp_path):
    def run(*arguments, source=ADD, inputs='{"a": 1}'):
        (tmp_path / "add.py").write_text(source)
        (tmp_path / "input.json").write_text(inputs)
        return subprocess.run(
            [sys.executable, "add.py", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=30
        )

    return run


def test_the_result_is_all_that_stands_on_stdout(script):
    done = script("input.json", ID, "-", "add")
    assert json.loads(done.stdout) == {
        "status": "succeeded", "nodes": ["next"], "outputs": {"id": ID}, "message": "Success",
    }  # fmt: skip
    assert done.stderr.startswith("said by main\n")
    assert " INFO add: so said logging" in done.stderr
    assert done.returncode == 0


def test_a_main_that_fails(script):
    done = script("input.json", ID, "-", "add", inputs='{"fail": true}')
    assert json.loads(done.stdout) == {
        "status": "failed", "nodes": [], "outputs": {}, "message": "Permanent: as asked",
    }  # fmt: skip
    assert 'raise Permanent("as asked")' in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "0 arguments, expected 4; usage: python add.py INPUT.json RUNNER_ID SELF_ADDR NODE"),
        (("input.json", ID, "-"), "3 arguments, expected 4"),
        (("missing.json", ID, "-", "add"), "missing.json: No such file or directory; expected a file with a JSON"),
        ((".", ID, "-", "add"), ".: Is a directory"),
        (("add.py", ID, "-", "add"), "expected a JSON object, the inputs"),
        (("input.json", "42", "-", "add"), "RUNNER_ID '42' is no UUID"),
        (("input.json", ID, "http://u:secret@x", "add"), "SELF_ADDR 'http://u:***@x': expected amqp://"),
        (("input.json", ID, "-", "../add"), "NODE '../add' cannot be the name"),
    ],
)
def test_wrong_arguments(script, arguments, said):
    done = script(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, "one line, no traceback"
    assert done.stdout == ""


def test_a_main_that_cannot_be_one(script):
    done = script("input.json", ID, "-", "add", source=ADD.replace("async def", "def"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: node 'add': main is not async; write 'async def main():'\n"


@pytest.mark.parametrize("inputs", ["[1]", "3", '"x"', "null", "", "{"])
def test_inputs_that_are_no_object(script, inputs):
    done = script("input.json", ID, "-", "add", inputs=inputs)
    assert done.returncode == 2
    assert "expected a JSON object" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ('{"a": [18446744073709551616]}', "input.json: a[0]: an integer over 64 bits does not fit JSON here"),
        ('{"a": 1e400}', "input.json: a: 1e400 is more than a 64-bit float can hold; send it as text"),
        ('{"a": 1, "a": 2}', "input.json: key 'a' stands there twice, and only one of its values can be kept"),
    ],
)
def test_inputs_that_cannot_be_kept(script, inputs, said):
    done = script("input.json", ID, "-", "add", inputs=inputs)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("call", ["node.get_inputs()", "node.get_id()"])
def test_a_script_may_look_at_its_inputs_before_it_runs(script, call):
    source = ADD.replace("node = Node()", f"node = Node()\nseen = {call}")
    assert script("input.json", ID, "-", "add", source=source).returncode == 0
    done = script("missing.json", ID, "-", "add", source=source)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_several_nodes_in_one_file(script):
    source = """
from flowkit import Node
one, two = Node("one"), Node("two")
@one.main
async def first(): return [], {}, "first"
@two.main
async def second(): return [], {}, "second"
one.run()
two.run()
"""
    assert json.loads(script("input.json", ID, "-", "two", source=source).stdout)["message"] == "second"
    assert json.loads(script("input.json", ID, "-", "one", source=source).stdout)["message"] == "first"
    done = script("input.json", ID, "-", "three", source=source)
    assert (done.returncode, done.stderr) == (2, "error: this file has no node 'three'; it has 'one'\n")


def test_a_broker_that_is_not_there(monkeypatch, capsys):
    node, ran = Node("add"), []

    @node.main
    async def main():
        ran.append(1)
        return [], {}, ""

    monkeypatch.setattr(oneshot, "CONNECT_TIMEOUT", 0.2)
    arguments = oneshot.Arguments("add", {}, uuid4(), "amqp://u:secret@127.0.0.1:1/")
    with pytest.raises(BrokerUnreachable) as caught:
        oneshot.run(node.definition, arguments)
    logging.getLogger("flowkit").setLevel(logging.NOTSET)  # a script ends after this, a test run goes on
    assert oneshot.complain(caught.value) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: broker amqp://u:***@127.0.0.1:1/")
    assert said.count("\n") == 1
    assert not ran, "nobody would have heard of it"


def test_a_missing_login_comes_from_the_settings():
    login = oneshot._with_login
    assert login("amqp://host:5/v", "amqp://me:pw%2F@other/") == "amqp://me:pw%2F@host:5/v"
    assert login("amqp://you@host/", "amqp://me:pw@other/") == "amqp://you@host/"
    assert login("amqps://host/", "memory:") == "amqps://host/"


async def test_on_a_broker_the_result_is_a_start_whose_first_task_is_done():
    node, topology, broker, id = Node("add"), Topology("other"), MemoryBroker(), uuid4()

    @node.main
    async def main():
        await Logger(node).info("working")
        return ["next"], {"x": 1}, "Success"

    task = oneshot.Arguments("add", {"a": 1}, id, "amqp://").task
    await broker.declare(topology.standing)
    starts = broker.consume(topology.starts, prefetch=1)
    logs = broker.consume(topology.logs, prefetch=1, offset="first")
    closed, broker.close = broker.close, _nothing  # the script would close it
    assert await oneshot._on_broker(node.definition, task, broker, topology) == 0
    (delivery,) = await starts.receive(1)
    start = decode(Start, delivery.body)
    assert (start.node, start.run_id, start.inputs, delivery.key) == ("add", str(id), {"a": 1}, "add")
    assert start.finished.status == "succeeded"
    assert (start.finished.nodes, start.finished.outputs) == (("next",), {"x": 1})
    assert start.finished.message == "Success"
    (line,) = decode_many(Log, (await logs.receive(1))[0].body)
    assert (line.message, line.task_id, line.run_id, line.seq) == ("working", id, str(id), 1)
    await closed()


async def test_on_a_broker_an_error_in_a_group_begins_a_run_that_has_failed():
    node, topology, broker = Node("add"), Topology("other"), MemoryBroker()

    async def fail():
        raise OSError("no route")

    @node.main
    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    await broker.declare(topology.standing)
    starts = broker.consume(topology.starts, prefetch=1)
    closed, broker.close = broker.close, _nothing
    task = oneshot.Arguments("add", {}, uuid4(), "amqp://").task
    assert await oneshot._on_broker(node.definition, task, broker, topology) == 1
    finished = decode(Start, (await starts.receive(1))[0].body).finished
    assert (finished.status, finished.error.type) == ("failed", "ExceptionGroup")
    assert "OSError: no route" in finished.error.traceback
    await closed()


async def _nothing():
    await asyncio.sleep(0)

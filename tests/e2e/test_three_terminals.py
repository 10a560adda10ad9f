"""What the README does by hand: coordinator, workers and a starter as processes on a real RabbitMQ."""

from __future__ import annotations

import json

from tests.e2e import foreign
from tests.e2e.processes import WORKERS


async def test_start_wait_logs_and_runs(shell):
    coordinator = await shell.coordinator()
    worker = await shell.worker("add")
    code, out, _ = await shell.call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "first", "--wait")
    run_id, _, outputs = out.partition("\n")
    assert (code, run_id, json.loads(outputs)) == (0, "first", {"result": 3})

    code, out, _ = await shell.call("runs", "list", "--json")
    (run,) = json.loads(out)["runs"]
    assert (code, run["id"], run["node"], run["status"], run["error"]) == (0, "first", "add", "succeeded", None)

    code, out, _ = await shell.call("runs", "show", "first", "--json")
    shown = json.loads(out)
    assert (shown["v"], shown["inputs"], shown["outputs"]) == (1, {"a": 1, "b": 2}, {"result": 3})
    (task,) = shown["tasks"]
    assert (task["node"], task["status"], task["attempt"]) == ("add", "succeeded", 1)

    code, out, _ = await shell.call("logs", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert any(line["message"] == "Result: 3" and line["run_id"] == "first" for line in lines)

    assert (await shell.call("runs", "show", "nowhere"))[0] == 4
    assert await worker.terminate() == 0
    assert await coordinator.terminate() == 0


async def test_the_census_on_three_workers(shell):
    await shell.coordinator()
    await shell.worker("discover", "summarize")
    await shell.worker("measure")
    arguments = ("-F", f"directory={WORKERS}", "--wait")
    code, out, said = await shell.call("start", "discover", *arguments)
    assert code == 0, said
    run_id, _, outputs = out.partition("\n")
    assert json.loads(outputs)["files"] == len(list(WORKERS.glob("*.py")))
    code, tree, _ = await shell.call("runs", "tree", run_id)
    assert code == 0
    assert tree.count("measure") >= 1


async def test_a_tail_sees_lines_as_they_come(shell):
    await shell.coordinator()
    await shell.worker("add")
    tail = await shell.flowkit("logs", "-f", "--json", "-n", "10")  # attached before the line or behind it
    assert tail.process.stdout is not None
    code, _, _ = await shell.call("start", "add", "-F", "a=20", "-F", "b=22", "--wait")
    assert code == 0
    line = json.loads(await tail.process.stdout.readline())
    assert (line["message"], line["node"], line["level"].upper()) == ("Result: 42", "add", "INFO")


async def test_the_same_start_twice_is_one_run_and_another_one_a_conflict(shell):
    await shell.coordinator()
    await shell.worker("add")
    same = ("start", "add", "-F", "a=1", "-F", "b=2", "--id", "one", "--wait")
    for _ in range(2):
        code, out, _ = await shell.call(*same)
        assert (code, json.loads(out.partition("\n")[2])) == (0, {"result": 3})
    code, _, said = await shell.call("start", "add", "-F", "a=5", "--id", "one", "--wait")
    assert code == 6
    assert "exists already" in said
    assert len(json.loads((await shell.call("runs", "list", "--json"))[1])["runs"]) == 1


async def test_a_killed_coordinator_and_a_killed_worker_lose_nothing(shell):
    coordinator, worker = await shell.coordinator(), await shell.worker("add")
    ids = [f"r{index}" for index in range(30)]
    for run_id in ids[:5]:
        assert (await shell.call("start", "add", "-F", "a=1", "-F", "b=1", "--id", run_id))[0] == 0
    await coordinator.kill()
    await worker.kill()
    for run_id in ids[5:10]:
        assert (await shell.call("start", "add", "-F", "a=1", "-F", "b=1", "--id", run_id))[0] == 0
    await shell.coordinator()
    await shell.worker("add")
    for run_id in ids[:10]:
        code, out, said = await shell.call("start", "add", "-F", "a=1", "-F", "b=1", "--id", run_id, "--wait")
        assert (code, json.loads(out.partition("\n")[2])) == (0, {"result": 2}), said


async def test_a_second_coordinator_on_the_same_file_exits_6(shell):
    await shell.coordinator()
    code, _, said = await shell.call("coordinator")
    assert code == 6
    assert "another coordinator" in said
    assert "Traceback" not in said


async def test_a_one_shot_script_starts_a_run_that_goes_on(shell, rabbitmq_url):
    """``python add.py input.json RUNNER_ID amqp://… add``: its result travels as a finished start."""
    await shell.coordinator()
    (shell.folder / "input.json").write_text('{"a": 1, "b": 2}')
    runner = "6f1c1c1e-0000-4000-8000-000000000001"
    script = await shell.python(str(WORKERS / "add.py"), "input.json", runner, rabbitmq_url, "add")
    code, _ = await script.result()
    assert code == 0, script.said
    arguments = ("start", "add", "-F", "a=1", "-F", "b=2", "--id", runner, "--wait")
    code, out, said = await shell.call(*arguments)
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"result": 3}), said
    shown = json.loads((await shell.call("runs", "show", runner, "--json"))[1])
    assert [(task["id"], task["status"]) for task in shown["tasks"]] == [(runner, "succeeded")]


async def test_a_worker_and_a_starter_without_flowkit(shell, rabbitmq_url, namespace):
    (shell.folder / "first.py").write_text(
        "from flowkit import Node, Send\n"
        "node = Node()\n"
        "async def main():\n"
        '    return [Send("foreign", {"n": node.get_inputs()["n"] + 1})], {}, "on"\n'
        "node.register_main(main)\n"
        "node.run()\n"
    )
    await shell.coordinator()
    await shell.worker("./first.py")
    await foreign.start(rabbitmq_url, namespace, "first", {"n": 20}, "from-afar")
    from flowkit.broker import open_broker
    from flowkit.wire.topology import Topology

    broker = open_broker(rabbitmq_url)
    await broker.declare([Topology(namespace).tasks("foreign")])  # the coordinator does it too, at its first send
    await foreign.work(rabbitmq_url, namespace, "foreign", 1)
    await broker.close()
    code, out, said = await shell.call("start", "first", "-F", "n=20", "--id", "from-afar", "--wait")
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"doubled": 42}), said


async def test_a_node_without_a_worker_waits_until_one_comes(shell):
    await shell.coordinator()
    assert (await shell.call("start", "add", "-F", "a=1", "-F", "b=1", "--id", "early"))[0] == 0
    waiting = await shell.flowkit("start", "add", "-F", "a=1", "-F", "b=1", "--id", "early", "--wait")
    await shell.worker("add")
    code, out = await waiting.result()
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"result": 2})

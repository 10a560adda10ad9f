"""FlowKit where every process has a login of its own, with the least rights, on a topology that was declared ahead."""

from __future__ import annotations

import json
import secrets

import pytest

from tests.e2e.processes import WORKERS, Shell


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secrets").mkdir()
    return tmp_path


@pytest.fixture
async def realm(private_rabbitmq, folder, namespace):
    """A shell in whose folder everything is set up as the how-to says: users, passwords, imported definitions."""
    logins = {
        "hub": "coordinator",
        "adder": "worker: add",
        "thief": "worker: other",
        "web": "starter",
        "ops": "operator",
        "ears": "tail",
        "root": "admin",
        "script": "script",
    }
    names = {name: f"{namespace}-{name}" for name in logins}
    lines = ["[users]", *(f'{names[name]} = "{role}"' for name, role in logins.items())]
    (folder / "flowkit.toml").write_text(f'namespace = "{namespace}"\n' + "\n".join(lines) + "\n")
    for name in names.values():
        (folder / "secrets" / name).write_text(secrets.token_hex(16) + "\n")
    shell = Shell(
        folder,
        FLOWKIT_STORE_URL=f"sqlite:///{folder}/flowkit.db",
        FLOWKIT_NODES_DIR=str(WORKERS),
    )
    code, out, said = await shell.call("broker", "definitions", "--passwords", "secrets")
    assert (code, said) == (0, "")
    (folder / "definitions.json").write_text(out)
    private_rabbitmq.ctl("import_definitions", str(folder / "definitions.json"))

    def become(name: str) -> Shell:
        login = names[name]
        shell.environment["FLOWKIT_BROKER_URL"] = f"amqp://{login}@127.0.0.1:{private_rabbitmq.port}/"
        shell.environment["FLOWKIT_BROKER_PASSWORD_FILE"] = str(folder / "secrets" / login)
        return shell

    yield become
    await shell.close()


async def test_a_run_goes_through_with_the_least_rights(realm, folder):
    await realm("hub").coordinator()
    worker = await realm("adder").worker("add")
    code, out, said = await realm("web").call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "one", "--wait")
    assert (code, out) == (0, 'one\n{"result": 3}\n'), said
    tail = await realm("ears").flowkit("logs", "--json")
    code, out = await tail.result()
    assert code == 0
    assert any(json.loads(line)["message"] == "Result: 3" for line in out.splitlines())
    assert "access" not in worker.said, worker.said

    # What needs more than a starter's rights is refused, and says so.
    assert (await realm("web").call("start", "nobody", "--id", "two"))[0] == 0
    code, _, said = await realm("web").call("runs", "cancel", "two")
    assert code == 6, said
    assert "refused" in said
    code, _, said = await realm("ops").call("runs", "cancel", "two")
    assert code == 0, said

    # The topology stands as it should, and who may not ask is told so.
    code, out, _ = await realm("root").call("broker", "diff", "--json")
    assert code == 0, out
    assert json.loads(out)["same"]
    code, out, said = await realm("web").call("broker", "diff")
    assert code == 1
    assert "unknown" in out
    assert "configure" in said


async def test_a_forged_result_is_refused_and_the_true_one_counts(realm, folder, namespace):
    (folder / "forge.py").write_text(FORGE)
    coordinator = await realm("hub").coordinator()
    code, _, said = await realm("web").call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "one")
    assert code == 0, said
    shell = realm("hub")
    while (shown := await shell.call("runs", "show", "one", "--json"))[0]:
        pass  # each look takes its time
    tasks = json.loads(shown[1])["tasks"]
    forger = await realm("thief").python("forge.py", namespace, "one", tasks[0]["id"])
    assert (await forger.result())[0] == 0, forger.said
    await coordinator.says("nobody (it has no user_id) may not answer for node 'add'")
    await coordinator.says(f"login '{namespace}-thief' may not answer for node 'add'")
    assert json.loads((await shell.call("runs", "show", "one", "--json"))[1])["status"] == "running"
    letters = json.loads((await shell.call("dead", "list", "--json"))[1])["dead"]
    assert [letter["reason"] for letter in letters] == ["forbidden", "forbidden"]

    await realm("adder").worker("add")
    code, out, said = await realm("web").call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "one", "--wait")
    assert (code, out) == (0, 'one\n{"result": 3}\n'), said


FORGE = """
import asyncio, json, os, sys
from pathlib import Path
import aio_pika

async def main(namespace, run_id, task_id):
    url = os.environ["FLOWKIT_BROKER_URL"]
    password = Path(os.environ["FLOWKIT_BROKER_PASSWORD_FILE"]).read_text().strip()
    login = url.split("//")[1].split("@")[0]
    connection = await aio_pika.connect(url.replace("@", f":{password}@"))
    channel = await connection.channel()
    exchange = await channel.get_exchange(f"{namespace}.results", ensure=False)
    result = {"task_id": task_id, "run_id": run_id, "nodes": [], "outputs": {"result": 666}, "message": "mine"}
    for user in (None, login):
        await exchange.publish(aio_pika.Message(json.dumps(result).encode(), user_id=user), "add.succeeded")
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""

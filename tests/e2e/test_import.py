"""The import: rows that are tried again, rows that are wrong, and an order for it that nobody can read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from flowkit.broker import Outgoing, open_broker
from flowkit.wire.topology import Topology
from tests.e2e.processes import WORKERS, Shell

LEFT_OUT = {  # the wrong lines of workers/orders.csv, and what is said of them
    5: "order.date: Input should be a valid date",
    7: "order.quantity: Input should be a valid integer",
    10: "order.customer: String should have at least 1 character",
    13: "order.price: Input should be a valid decimal",
}


def check_report(out: str) -> None:
    """The whole report, whoever printed it."""
    report = json.loads(out)
    assert (report["file"], report["stored"], report["total"]) == (str(WORKERS / "orders.csv"), 8, "3488.80")
    assert [row["line"] for row in report["left_out"]] == list(LEFT_OUT)
    for row, why in zip(report["left_out"], LEFT_OUT.values(), strict=True):
        assert row["why"].startswith("InvalidInputs: inputs do not fit node 'store_order': ")
        assert why in row["why"]


def numbers(shell: Shell) -> list[str]:
    """What is in the database of orders."""
    with closing(sqlite3.connect(shell.folder / "orders.db")) as database:
        return [number for (number,) in database.execute("SELECT number FROM orders ORDER BY number")]


async def until(shell: Shell, *words: str, holds: Callable[[Any], bool]) -> Any:
    """What a verb prints as JSON, once it is so."""
    for _ in range(60):
        code, out, said = await shell.call(*words, "--json")
        if code == 0 and holds(json.loads(out)):
            return json.loads(out)
    raise AssertionError(f"flowkit {' '.join(words)}: {out}{said}")


async def test_wrong_rows_do_not_stop_the_others(shell):
    code, out, said = await shell.call("run", "import_orders", "-F", f"database={shell.folder}/orders.db")
    assert code == 0, said
    check_report(out)
    assert numbers(shell) == ["A-1001", "A-1002", "A-1003", "A-1005", "A-1007", "A-1008", "A-1010", "A-1011"]
    assert "line 7: InvalidInputs" in said


async def test_rows_are_tried_again_while_the_database_is_locked_and_everything_is_killed(shell):
    """Nothing but the store knows of the retries by then."""
    coordinator = await shell.coordinator()
    worker = await shell.worker("import_orders", "store_order", "import_report")
    with closing(sqlite3.connect(shell.folder / "orders.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = ("start", "import_orders", "--id", "march", "-F", f"database={shell.folder}/orders.db")
        assert (await shell.call(*start))[0] == 0

        def eight_retry(told: Any) -> bool:
            return len(told["tasks"]) == 8 and all(task["kind"] == "retrying" for task in told["tasks"])

        told = await until(shell, "runs", "explain", "march", holds=eight_retry)
        assert all("OperationalError: database is locked" in task["text"] for task in told["tasks"])
        await worker.kill()
        await coordinator.kill()
        other.execute("ROLLBACK")
    await shell.coordinator()
    await shell.worker("import_orders", "store_order", "import_report")
    code, out, said = await shell.call(*start, "--wait", "--timeout", "60s", timeout=70)
    assert code == 0, said
    check_report(out.partition("\n")[2])
    assert len(numbers(shell)) == 8
    shown = json.loads((await shell.call("runs", "show", "march", "--json"))[1])
    tries = {task["status"]: task["attempt"] for task in shown["tasks"] if task["node"] == "store_order"}
    assert tries["succeeded"] > 1
    assert tries["failed"] == 1  # wrong rows are not tried again


async def test_an_order_that_nobody_can_read_becomes_a_dead_letter(shell, rabbitmq_url, namespace):
    """A foreign system writes its start in Latin-1, and puts that right; somebody looks, and clears up."""
    topology = Topology(namespace)
    inputs = {"file": str(WORKERS / "orders.csv"), "database": f"{shell.folder}/orders.db", "by": "Müller"}
    text = json.dumps({"run_id": "april", "node": "import_orders", "inputs": inputs}, ensure_ascii=False)
    await shell.coordinator()
    await shell.worker("import_orders", "store_order", "import_report")
    broker = open_broker(rabbitmq_url)
    try:
        await broker.connect(10)

        async def publish(body: bytes) -> None:
            assert await broker.publish([Outgoing(topology.starts.name, "import_orders", body, "shop")]) == [None]

        await publish(text.encode("latin-1"))
        dead = await until(shell, "dead", "list", holds=lambda told: told["total"] == 1)
        (letter,) = dead["dead"]
        assert (letter["reason"], letter["queue"]) == ("not-json", topology.starts.name)
        code, shown, _ = await shell.call("dead", "show", str(letter["id"]))
        assert (code, text.encode("latin-1").hex(" ") in shown) == (0, True)
        assert (await shell.call("runs", "show", "april"))[0] == 4  # no run came of it

        await publish(text.encode())
    finally:
        await broker.close()
    await until(shell, "runs", "show", "april", holds=lambda run: run["status"] == "succeeded")
    assert len(numbers(shell)) == 8
    code, _, said = await shell.call("dead", "discard", str(letter["id"]), "--yes")
    assert code == 0, said
    assert json.loads((await shell.call("dead", "list", "--json"))[1])["total"] == 0

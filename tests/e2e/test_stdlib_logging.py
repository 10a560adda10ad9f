"""stdlib ``logging`` of a node that configures it against everybody, in the three ways to run a node."""

from __future__ import annotations

import json

NOISY = """
import logging
import logging.config
from flowkit import Node

early = logging.getLogger("early")
logging.info("at import")
logging.basicConfig(level="ERROR", force=True)
SWITCHED_OFF = {"version": 1, "disable_existing_loggers": True, "root": {"level": "ERROR", "handlers": []}}
logging.config.dictConfig(SWITCHED_OFF)
node = Node("noisy")

@node.main
async def main():
    early.info("first of %s", 3)
    logging.config.dictConfig(SWITCHED_OFF)
    logging.getLogger().setLevel("CRITICAL")
    logging.info("second")
    logging.basicConfig(force=True)
    logging.getLogger().handlers.clear()
    early.warning("third")
    return [], {}, "done"

node.run()
"""
LINES = [("INFO", "first of 3"), ("INFO", "second"), ("WARNING", "third")]
ID = "123e4567-e89b-42d3-a456-426614174000"


async def test_under_a_worker(shell):
    (shell.folder / "noisy.py").write_text(NOISY)
    await shell.coordinator()
    worker = await shell.worker("./noisy.py")
    code, _, said = await shell.call("start", "noisy", "--id", "r", "--wait")
    assert code == 0, said
    tail = await shell.flowkit("logs", "r", "--json", "-f")
    lines = [json.loads(await tail.process.stdout.readline()) for _ in LINES]
    assert [(line["level"], line["message"]) for line in lines] == LINES
    assert {(line["run_id"], line["node"], line["attempt"]) for line in lines} == {("r", "noisy", 1)}
    assert all(line["task_id"] for line in lines)
    await worker.terminate()
    assert "SIGTERM: finishing what has started" in worker.said, "its own log survives"
    assert not any(message in worker.said for _, message in LINES)


async def test_under_run(shell):
    (shell.folder / "noisy.py").write_text(NOISY)
    code, _, said = await shell.call("run", "noisy", "--nodes", str(shell.folder))
    assert code == 0, said
    assert [said.count(f"{level:8} noisy  {message}") for level, message in LINES] == [1, 1, 1], said
    assert [said.count(message) for _, message in LINES] == [1, 1, 1], said


async def test_as_a_script(shell):
    (shell.folder / "noisy.py").write_text(NOISY)
    (shell.folder / "input.json").write_text("{}")
    script = await shell.python("noisy.py", "input.json", ID, "-", "noisy")
    assert (await script.result())[0] == 0
    assert [script.said.count(f" {level} noisy: {message} ") for level, message in LINES] == [1, 1, 1], script.said
    assert [script.said.count(message) for _, message in LINES] == [1, 1, 1], script.said

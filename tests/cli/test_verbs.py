"""Verbs that need no broker, and what they all have in common."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from flowkit.cli import options
from flowkit.cli.app import app
from flowkit.cli.render import output
from flowkit.errors import UsageError
from tests.cli import kept

VERBS = [
    *([command.name] for command in app().registered_commands),
    *([group.name, command.name or command.callback.__name__]
      for group in app().registered_groups for command in group.typer_instance.registered_commands),
]  # fmt: skip


def test_help_answers_quickly(process, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # as installed: compiled once, not at each call

    def seconds() -> float:
        begun = time.perf_counter()
        asked = process("--help")
        assert asked.wait(timeout=20) == 0
        return time.perf_counter() - begun

    # 0.2 s on an idle machine; the bound is for the tests' busy one, and for what an eager import would cost.
    assert min(seconds() for _ in range(5)) < 0.6


def test_help_imports_nothing_heavy():
    code = "import sys; from flowkit.cli.app import app; app(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pydantic", "asyncio", "aiormq", "sqlalchemy", "sqlite3", "rich", "orjson"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_examples_before_its_options(flowkit, verb):
    said = flowkit(*verb, "--help")
    assert said.code == 0
    before, _, _ = said.out.partition("Options:")
    assert f"\n    flowkit {' '.join(verb)}" in before or f"flowkit {verb[0]}" in before.split("\n\n", 2)[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "No such command 'nosuch'. See 'flowkit --help'."),
        (["run"], "Missing argument 'NODE'. See 'flowkit run --help'."),
        (["run", "add", "--nosuch"], "No such option: --nosuch"),
        (["worker"], "Missing option '--node'. See 'flowkit worker --help'."),
        (["runs", "list", "--status", "odd"], "--status 'odd': expected one of running, paused"),
        (["runs", "list", "--since", "soon"], "--since 'soon': expected a duration"),
        (["logs", "--grep", "("], "--grep '(': no regular expression"),
        (["logs", "--level", "LOUD"], "--level 'LOUD': expected one of DEBUG"),
        (["health", "--kind", "cat"], "--kind 'cat': expected worker or coordinator"),
        (["completion", "tcsh"], "shell 'tcsh': expected one of bash, zsh, fish"),
        (["new", "1x"], "node name '1x'"),
        (["runs", "list", "--limit", "0"], "equal to 1. See 'flowkit runs list --help'."),
        (["start", "add", "--broker", "http://x/"], "expected amqp://"),
        (["runs", "list", "--store", "mysql://u:canary@x"], "no store that FlowKit knows"),
        (["config", "--namespace", "a.b"], "setting namespace = 'a.b' (flag --namespace)"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(flowkit, arguments, says):
    said = flowkit(*arguments)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert "canary" not in said.err


def test_a_store_that_is_not_there(flowkit, folder):
    said = flowkit("runs", "list")
    assert said.code == 3
    assert "there is no such file; a coordinator makes it" in said.err
    assert not (folder / ".flowkit").exists()
    said = flowkit("runs", "list", "--store", "postgresql://u:canary@127.0.0.1:1/x")
    assert said.code == 3
    assert "canary" not in said.err


def test_a_run_that_is_not_there(flowkit):
    flowkit("db", "upgrade")
    for verb in (("runs", "show"), ("runs", "tree"), ("logs",)):
        said = flowkit(*verb, "nope")
        assert (said.code, said.err) == (4, "flowkit: no run 'nope'. 'flowkit runs list' shows those that are there.\n")


def test_db_status_and_upgrade(flowkit, folder):
    said = flowkit("db", "status", "--json")
    assert (said.code, said.json["current"]) == (1, False)
    assert not (folder / ".flowkit").exists()
    assert flowkit("db", "upgrade").code == 0
    said = flowkit("db", "status", "--json")
    assert (said.code, said.json["current"]) == (0, True)
    assert "is current" in flowkit("db", "status").out


def test_where_nothing_is_the_next_step_is_said(flowkit):
    flowkit("db", "upgrade")
    for arguments, says in (
        (("runs", "list"), "No runs yet: flowkit start NODE"),
        (("runs", "list", "--status", "failed"), "No such runs."),
        (("nodes",), "No nodes yet: flowkit worker --node NAME"),
    ):
        said = flowkit(*arguments)
        assert (said.code, said.out, said.err) == (0, "", says + "\n")


def test_runs_as_pinned_json(flowkit):
    store = ("--store", "sqlite:///kept.db")
    for a in (1, 2, 3):
        flowkit("run", "add", "-F", f"a={a}", "-F", "b=2", *store)
    flowkit("run", "add", "-F", "a=1", *store)
    page = flowkit("runs", "list", "--json", "--limit", "3", *store).json
    rest = flowkit("runs", "list", "--json", "--limit", "1000", "--after", page["next"], *store).json
    assert (page["v"], len(page["runs"]), len(rest["runs"]), rest["next"]) == (1, 3, 1, None)
    newest = page["runs"][0]
    assert set(newest) >= {"id", "node", "status", "started_at", "ended_at", "error"}
    assert (newest["status"], newest["error"]["type"]) == ("failed", "KeyError")
    assert newest["started_at"].endswith("Z")
    failed = flowkit("runs", "list", "--json", "--status", "failed", *store).json["runs"]
    assert [run["id"] for run in failed] == [newest["id"]]

    shown = flowkit("runs", "show", page["runs"][1]["id"], "--json", *store).json
    assert (shown["v"], shown["inputs"], shown["outputs"], shown["message"]) == (
        1,
        {"a": 3, "b": 2},
        {"sum": 5},
        "Success",
    )
    (task,) = shown["tasks"]
    assert (task["node"], task["status"], task["attempt"], task["path"]) == ("add", "succeeded", 1, "0")


def test_runs_for_people(flowkit):
    store = ("--store", "sqlite:///kept.db")
    flowkit("run", "add", "-F", "a=1", *store)
    listed = flowkit("runs", "list", *store).out
    assert "KeyError: 'b'" in listed
    run_id = listed.splitlines()[1].split()[0]
    assert 'inputs   {"a":1}' in flowkit("runs", "show", run_id, *store).out
    assert flowkit("runs", "tree", run_id, *store).out.startswith("✖ add  failed")
    history = flowkit("logs", run_id, *store)
    assert (history.code, "adding" in history.out) == (0, True)
    assert [json.loads(line)["message"] for line in flowkit("logs", run_id, "--json", *store).out.splitlines()] == [
        "adding"
    ]
    assert flowkit("logs", run_id, "--grep", "^x", *store).out == ""
    (node,) = flowkit("nodes", "--json", *store).json["nodes"]
    assert (node["node"], node["running"], node["queued"], node["held"]) == ("add", 0, 0, 0)


def test_config_prints_values_with_their_origin_and_no_password(flowkit, monkeypatch):
    monkeypatch.setenv("FLOWKIT_BROKER_URL", "amqp://me:canary@host/")
    said = flowkit("config")
    assert "amqp://me:***@host/" in said.out
    assert "environment FLOWKIT_BROKER_URL" in said.out
    assert flowkit("config", "--json").json["settings"]["concurrency"] == {"value": 100, "origin": "default"}
    assert "canary" not in said.out + said.err


def test_new_writes_a_node_and_a_test_and_overwrites_nothing(flowkit, folder):
    said = flowkit("new", "hello-you")
    assert said.code == 0
    assert said.out.splitlines() == ["workers/hello-you.py", "tests/test_hello_you.py"]
    assert flowkit("run", "hello-you", "-q").json == {"greeted": "world"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    said = flowkit("new", "hello-you")
    assert (said.code, "exists already" in said.err) == (6, True)


def test_completion_and_version(flowkit):
    for shell in ("bash", "zsh", "fish"):
        assert "_FLOWKIT_COMPLETE" in flowkit("completion", shell).out
    assert flowkit("--version").out == flowkit("version").out
    assert flowkit("version").out.startswith("flowkit ")


def test_completion_completes(process):
    words = {"_FLOWKIT_COMPLETE": "complete_bash", "COMP_WORDS": "flowkit ru", "COMP_CWORD": "1"}
    asked = process(env=os.environ | words)
    assert asked.communicate(timeout=20)[0].split() == ["run", "runs"]


def test_an_interrupt_exits_130(process, folder):
    (folder / "workers" / "slow.py").write_text(
        "import asyncio\nfrom flowkit import Node, Logger\nnode = Node('slow')\nlogger = Logger(node)\n"
        "@node.main\nasync def main():\n    await logger.info('begun')\n    await logger.flush()\n"
        "    await asyncio.sleep(60)\n    return [], {}, ''\nnode.run()\n"
    )
    running = process("run", "slow")
    assert "begun" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out, err) == (130, "", "flowkit: interrupted\n")


def test_an_interrupt_takes_the_progress_line_away(folder):
    """On a terminal: what is said after it begins on a line of its own."""
    (folder / "workers" / "slow.py").write_text(
        "import asyncio\nfrom flowkit import Node\nnode = Node()\n"
        "@node.main\nasync def main():\n    await asyncio.sleep(60)\n    return [], {}, ''\nnode.run()\n"
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flowkit.cli", "run", "slow"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as running:
        os.close(theirs)
        said = b""
        while b"tasks to do" not in said:
            said += os.read(ours, 4096)
        running.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while read := os.read(ours, 4096):
                said += read
    os.close(ours)
    assert running.returncode == 130
    assert said.endswith(b"\r\x1b[2Kflowkit: interrupted\r\n")


@pytest.mark.parametrize("verb", [["doctor", "--broker", "memory:seen"], ["check"], ["runs", "list"]], ids=" ".join)
def test_a_terminal_sees_colours_and_no_leftovers_of_them(folder, verb):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flowkit.cli", *verb]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    kept.begin("r")
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while read := os.read(ours, 4096):
                said += read
    os.close(ours)
    text = re.sub(r"\x1b\[\d+m", "", said.decode())
    assert text.strip()
    assert "\x1b" not in text
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert verb[0] != "doctor" or b"\x1b[32m\xe2\x9c\x94\x1b[0m Python: " in said


def test_a_reader_that_goes_away_is_no_error(process):
    printing = process("completion", "bash", stdout=subprocess.PIPE)
    printing.stdout.close()
    assert printing.wait(timeout=20) == 1
    assert printing.stderr.read() == ""


def test_durations():
    assert [options.seconds(text, "--delay") for text in ("90", "1.5s", "5m", "1h30m", "2d")] == [
        90,
        1.5,
        300,
        5400,
        172800,
    ]
    for wrong in ("", "m", "5 m", "-1s", "1x"):
        with pytest.raises(UsageError):
            options.seconds(wrong, "--delay")


def test_outputs_for_people():
    shown = output.outputs(
        {
            "files": 1200,
            "note": None,
            "ok": True,
            "sizes": {"small": 1, "large": 20},
            "top": [{"f": "x", "n": 10}, {"f": "yy", "n": 9}],
        }
    )
    assert (
        shown == "files  1,200\nnote\nok     yes\n\nsizes\n  small  1\n  large  20\n\ntop\n  f    n\n  x   10\n  yy   9"
    )


def test_control_characters_never_reach_a_terminal():
    class Terminal:
        def isatty(self) -> bool:
            return True

    assert (
        output.clean("a\x1b[31mb\x07\u202ec\td\n", Terminal())
        == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}c\td\n"
    )


def test_an_audit_says_what_does_not_hold(flowkit, folder):
    assert flowkit("doctor", "--audit", "--broker", "memory:audit", "--json").json["checks"][-1]["name"] == "store"
    kept.begin("sound")
    kept.begin("broken")
    with sqlite3.connect(".flowkit/flowkit.db") as database:
        database.execute("UPDATE scopes SET outstanding = 7 WHERE run_id = 'broken'")
    database.close()
    said = flowkit("doctor", "--audit", "--broker", "memory:audit")
    assert said.code == 1
    lines = said.out.splitlines()
    assert "✖ audit: 2 running; 2 tasks; dead letters: none; 1 problems" in lines
    assert lines[-1] == "✖ run broken: scope of the run counts 7 outstanding, and has 1"
    old = flowkit("doctor", "--audit", "--since", "1ms", "--broker", "memory:audit", "--json").json["checks"][-1]
    assert old["found"] == "no runs; 0 tasks; dead letters: none; 0 problems"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--since", "1d"], "--since says which runs --audit looks at"),
        (["--audit", "--since", "soon"], "--since 'soon'"),
    ],
)
def test_an_audit_that_makes_no_sense_is_refused(flowkit, arguments, why):
    said = flowkit("doctor", *arguments)
    assert said.code == 2
    assert why in said.err

"""The parent of several workers without a broker: children that die early, that do not end, that cannot be begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from flowkit.cli.services import cpu_count
from flowkit.cli.services.supervisor import Patience
from flowkit.settings import MOST_PROCESSES

PARENT = """
import errno, os, signal, sys
from pathlib import Path
from flowkit.cli.services.supervisor import Parent, Patience
from flowkit.cli.services.own_log import configure

configure("INFO", "text")
{before}
role = Parent(2, "nothing", Patience(rest={rest}, attempts=3, forced=0.1)).run()
if isinstance(role, int):
    sys.exit(role)
{children}
"""


class Family:
    """A parent with its children, in a process group of their own."""

    def __init__(self, children: str, *, before: str = "", rest: float = 0.01) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT.format(children=children, before=before, rest=rest)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.said = ""

    def says(self, text: str) -> None:
        """Read its log up to the line with this text."""
        for line in self.process.stderr:
            self.said += line
            if text in line:
                return
        raise AssertionError(f"never said {text!r}: {self.said}")

    def ends(self) -> int:
        """Its exit code, when nobody is left who could write to its log."""
        self.said += self.process.stderr.read()
        return self.process.wait(timeout=10)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def family():
    begun: list[Family] = []

    def begin(children: str, **words: Any) -> Family:
        begun.append(Family(children, **words))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


TAKE = "all 2 worker processes take tasks"
OBEDIENT = """
role.ready()
print(os.getpid(), flush=True)
role._end.setblocking(True)
role._end.recv(1)
"""


def test_it_gives_up_when_those_that_follow_die_at_once_again_and_again(family, folder):
    parent = family(
        """
if Path("broken").exists():
    os.kill(os.getpid(), signal.SIGSEGV)
"""
        + OBEDIENT
    )
    parent.says(TAKE)
    (folder / "broken").touch()
    os.kill(int(parent.process.stdout.readline()), signal.SIGKILL)
    assert parent.ends() == 128 + signal.SIGSEGV
    assert "was killed by SIGKILL; another one begins in 0.01 s" in parent.said
    assert "was killed by SIGSEGV; another one begins in 0.02 s" in parent.said
    assert "was killed by SIGSEGV, and so did those before it: 3 in a row died early. The others finish" in parent.said
    assert "ended with exit code 0" in parent.said


def test_while_the_broker_is_away_one_that_died_takes_no_others_along(family, folder):
    parent = family("if Path('away').exists(): sys.exit(3)\n" + OBEDIENT)
    parent.says(TAKE)
    (folder / "away").touch()
    os.kill(int(parent.process.stdout.readline()), signal.SIGKILL)
    for rest in ("0.02", "0.04", "0.08", "0.16"):  # longer than the three in a row that would end all
        parent.says(f"ended with exit code 3; another one begins in {rest} s")
    (folder / "away").unlink()
    parent.says(TAKE)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.ends() == 0


def test_a_signal_while_the_next_one_waits_ends_without_it(family):
    parent = family(OBEDIENT, rest=600)
    parent.says(TAKE)
    os.kill(int(parent.process.stdout.readline()), signal.SIGKILL)
    parent.says("another one begins in 30 s")
    parent.process.send_signal(signal.SIGTERM)
    assert parent.ends() == 0
    assert parent.said.count("worker process ") == 2


def test_the_first_one_is_not_tried_again(family):
    parent = family("os.kill(os.getpid(), signal.SIGSEGV)")
    assert parent.ends() == 128 + signal.SIGSEGV
    assert parent.said.count("was killed by SIGSEGV before it took tasks") == 1


def test_a_child_that_does_not_end_is_killed_some_time_after_the_second_signal(family):
    parent = family("role.ready()\nwhile True: signal.pause()")
    parent.says(TAKE)
    parent.process.send_signal(signal.SIGTERM)
    parent.says("once more stops them now")
    parent.process.send_signal(signal.SIGTERM)
    assert parent.ends() == 128 + signal.SIGKILL
    assert parent.said.count("does not end: killed") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_child_that_is_not_ready_has_nothing_to_finish(family, number):
    parent = family("print('here', flush=True)\nwhile True: signal.pause()")
    assert parent.process.stdout.readline() == "here\n"
    if number == signal.SIGINT:
        os.killpg(parent.process.pid, number)  # as a terminal does
    else:
        parent.process.send_signal(number)
    assert parent.ends() == 0
    assert "Traceback" not in parent.said


def test_a_fork_that_fails_says_why(family):
    parent = family("", before="""
def fork():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
os.fork = fork
""")  # fmt: skip
    assert parent.ends() == 1
    assert "cannot fork: Resource temporarily unavailable" in parent.said
    assert "worker process number 1 could not be begun before it took tasks" in parent.said


def test_each_early_death_in_a_row_doubles_the_rest():
    patience = Patience()
    assert [patience.before(deaths) for deaths in (0, 1, 2, 3, 7, 100)] == [0, 0.5, 1, 2, 30, 30]


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 3), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 3), ("", 3)],
)
def test_auto_is_one_for_each_core_within_the_quota_of_the_container(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(cpu_count, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota:
        cpu_count.CPU_QUOTA.write_text(quota)
    assert cpu_count.cores() == expected


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", str(MOST_PROCESSES + 1), "9" * 5000, "²"])
def test_a_number_that_cannot_be_is_a_usage_error(flowkit, value):
    said = flowkit("worker", "--node", "add", "--processes", value)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "expected a number from 1 to 256, or auto: one for each core" in said.err


def test_a_number_of_processes_is_a_setting(flowkit, monkeypatch):
    monkeypatch.setenv("FLOWKIT_PROCESSES", "auto")
    assert flowkit("config", "--json").json["settings"]["processes"] == {
        "value": "auto", "origin": "environment FLOWKIT_PROCESSES",
    }  # fmt: skip


@pytest.mark.parametrize("verb", [("worker", "--node", "add"), ("coordinator",)], ids=["worker", "coordinator"])
@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a=b", "100%", "-x", "a/b", "a\nb", "a\x1b[31m", "ä", "\udcff", "n" * 300]
)
def test_a_name_that_cannot_be_is_said_in_one_line(flowkit, verb, name):
    said = flowkit(*verb, f"--name={name}")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"--name {name[:120]!r}: expected a letter or digit, then up to 99 letters" in said.err


def test_a_name_leaves_room_for_the_numbers_of_processes(flowkit):
    said = flowkit("worker", "--node", "add", "--processes", "10", "--name", "n" * 98)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "room for the number of its process (-10)" in said.err

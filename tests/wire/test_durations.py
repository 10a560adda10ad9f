"""Every place where somebody says how long, and what is no such number there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import tenacity
from pydantic import ValidationError

from flowkit.client.client import start_message
from flowkit.errors import InvalidNode, Unreadable, UsageError
from flowkit.settings import read
from flowkit.wire import messages as wire
from flowkit.wire.durations import LONGEST
from flowkit.wire.items import Gather, Send, Wait
from flowkit.wire.misuse import misuse
from flowkit.worker.definition import Definition
from flowkit.worker.policy import Policy

TASK = "0b6f6a1c-4c8e-4f0e-8a8a-5b7f3c1d2e4f"
NEVER = (-1, 1e300, math.inf, -math.inf, math.nan, 10**400, LONGEST * 1.001, "5", "soon", True)


async def main() -> tuple[list[str], dict[str, Any], str]:
    return [], {}, ""


def result(retry_in: Any) -> wire.Result:
    return wire.Result(task_id=TASK, run_id="r", status="retry", attempt=1, retry_in=retry_in)


def command(grace: Any) -> wire.Command:
    return wire.Command(id=TASK, kind="cancel", run_id="r", grace=grace)


FROM_ZERO: dict[str, Callable[[Any], Any]] = {
    "Send(delay)": lambda seconds: Send("b", delay=seconds),
    "start delay": lambda seconds: wire.Start(node="a", delay=seconds),
    "retry_in": result,
    "cancel grace": command,
    "grace as workers are told": lambda seconds: wire.Control(kind="cancel", grace=seconds),
}
OVER_ZERO: dict[str, Callable[[Any], Any]] = {
    "Gather(timeout)": lambda seconds: Gather(["a"], then="b", timeout=seconds),
    "Wait(timeout)": lambda seconds: Wait("go", then="b", timeout=seconds),
    "Node(timeout)": lambda seconds: Definition("a", main, timeout=seconds),
    "Node(queue_timeout)": lambda seconds: Definition("a", main, queue_timeout=seconds),
    "announced timeout": lambda seconds: wire.NodeInfo(name="a", timeout=seconds),
    "announced queue_timeout": lambda seconds: wire.NodeInfo(name="a", queue_timeout=seconds),
    "start deadline": lambda seconds: wire.Start(node="a", deadline=seconds),
}


@pytest.mark.parametrize("place", FROM_ZERO | OVER_ZERO)
@pytest.mark.parametrize("seconds", NEVER)
def test_what_is_no_duration_is_refused_where_it_is_made(place: str, seconds: Any) -> None:
    with pytest.raises((ValidationError, InvalidNode)):
        (FROM_ZERO | OVER_ZERO)[place](seconds)


@pytest.mark.parametrize("place", FROM_ZERO | OVER_ZERO)
@pytest.mark.parametrize("seconds", [1, 0.001, LONGEST])
def test_what_is_one_is_taken(place: str, seconds: float) -> None:
    (FROM_ZERO | OVER_ZERO)[place](seconds)


@pytest.mark.parametrize("place", OVER_ZERO)
def test_no_time_at_all_is_no_timeout(place: str) -> None:
    with pytest.raises((ValidationError, InvalidNode)):
        OVER_ZERO[place](0)


@pytest.mark.parametrize("place", FROM_ZERO)
def test_no_time_at_all_is_a_duration(place: str) -> None:
    FROM_ZERO[place](0)


@pytest.mark.parametrize("seconds", [0, *NEVER])
def test_a_node_says_what_it_expects(seconds: Any) -> None:
    with pytest.raises(InvalidNode, match="expected seconds, a number over 0 and up to 100 years"):
        Definition("a", main, timeout=seconds)


@pytest.mark.parametrize("seconds", [-1, 1e300, math.inf, math.nan, LONGEST * 1.001])
async def test_a_policy_that_waits_for_ever_is_refused(seconds: float) -> None:
    policy = Policy(stop=tenacity.stop_never, wait=lambda state: seconds)
    with pytest.raises(ValueError, match="expected seconds, a number from 0 on and up to 100 years"):
        await policy.retry_in(OSError(), tries=1, first=0, now=0)


@pytest.mark.parametrize("text", ["1e300", '"5"', "true", "-1", "NaN", "Infinity"])
def test_nor_does_one_come_by_the_wire(text: str) -> None:
    for body in (
        f'{{"node": "a", "delay": {text}}}',
        f'{{"node": "a", "deadline": {text}}}',
    ):
        with pytest.raises(Unreadable):
            wire.decode(wire.Start, body.encode())
    told = f'{{"worker": "w", "nodes": [{{"name": "a", "queue_timeout": {text}}}]}}'
    with pytest.raises(Unreadable):
        wire.decode(wire.Worker, told.encode())


@pytest.mark.parametrize("seconds", NEVER)
def test_a_client_says_it_at_once(seconds: Any) -> None:
    with pytest.raises(UsageError, match="delay"):
        start_message("a", {}, delay=seconds)
    with pytest.raises(UsageError, match="deadline"):
        start_message("a", {}, deadline=seconds)


@pytest.mark.parametrize("setting", ["drain_timeout", "lease_after", "lease_silence", "retention_days"])
@pytest.mark.parametrize("text", ["-1", "1e300", "inf", "nan", "soon", "true"])
def test_a_setting_is_bounded_too(setting: str, text: str) -> None:
    with pytest.raises(UsageError, match=setting):
        read(environ={f"FLOWKIT_{setting.upper()}": text})


def test_the_longest_of_all_can_still_be_written() -> None:
    assert wire.rfc3339(4_102_444_800 + LONGEST).startswith("2200-01-0")  # from the year 2100


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1e300, "1e+300: expected seconds, up to 100 years"), ("5", "'5': expected seconds, a number")],
)
def test_an_author_reads_what_is_wrong(seconds: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Send("b", delay=seconds)
    assert misuse(refused.value) == f"Send: delay is {said}"


def test_json_knows_whole_numbers_too() -> None:
    assert wire.decode(wire.Start, json.dumps({"node": "a", "delay": 5}).encode()).delay == 5

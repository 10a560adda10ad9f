"""Limits of a node over all its workers: how many of its tasks are out at a time, and how many go out in a while.

A task of such a node counts in a *slot*: its node's, or that of its node and the value of one of its inputs. It is made
held, and is let out as soon as its slot has room: mostly in the same transaction. How many are out is counted from the
rows each time, so there is no counter that could leak, and nothing waits inside a worker.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flowkit.wire import codec, rates

BURST = 0.25  # seconds by which a look may be late and make up for it: timers look about that often
IDLE = 1.0  # seconds after which nothing is made up for: nobody wanted to go out
LONGEST = 200  # bytes of a key's value in the name of a slot; longer ones are told apart by their hash


@dataclass(frozen=True, slots=True)
class NodeLimit:
    """What a node announced of its limits; at least one of ``limit`` and ``rate`` is set."""

    limit: int | None = None  # tasks that are sent and not yet answered
    rate: str | None = None
    key: str | None = None  # the input by whose value tasks are counted apart


class MissingKey(Exception):
    """A task's inputs do not have the key that its node's limit goes by."""


def slot(node: str, limit: NodeLimit, inputs: Callable[[], Mapping[str, Any]]) -> str:
    """The slot that a task counts in.

    Args:
        node: its node.
        limit: of that node.
        inputs: the task's, asked for only where a key is.

    Raises:
        MissingKey: the message says what is there instead.
    """
    if limit.key is None:
        return node
    given = inputs()
    if limit.key not in given:
        there = ", ".join(sorted(given)[:10]) or "none"
        raise MissingKey(
            f"node {node!r} is limited by the key {limit.key!r}, which its inputs do not have; they have: {there}"
        )
    value = codec.canonical(given[limit.key])
    told = value.decode() if len(value) <= LONGEST else "sha256:" + hashlib.sha256(value).hexdigest()
    return f"{node} {limit.key}={told}"


def node_of(name: str) -> str:
    """The node of a slot. Names of nodes have no spaces."""
    return name.partition(" ")[0]


def key_of(name: str) -> str:
    """What tells a slot from the others of its node, such as ``customer_id=17``; empty without a key."""
    return name.partition(" ")[2]


class Room(NamedTuple):
    """How many tasks a slot may let out now, and by when its rate allows the first of them."""

    tasks: int
    earliest: float  # Unix seconds; counts only where there is a rate
    by_rate: bool = False  # it is the rate that lets no more out


def room(limit: NodeLimit | None, out: int, next_at: float | None, now: float, most: int) -> Room:
    """What a slot has room for.

    Args:
        limit: of its node; None when that has none any more.
        out: tasks of the slot that are sent and not yet answered.
        next_at: when its rate allows the next task; None when none went out lately.
        now: Unix seconds.
        most: how many are let out at once at most.
    """
    free = most
    if limit is not None and limit.limit is not None:
        free = min(free, max(limit.limit - out, 0))
    if limit is None or limit.rate is None:
        return Room(free, now)
    every = rates.interval(limit.rate)
    earliest = now if next_at is None or next_at < now - IDLE else max(next_at, now - BURST)
    earliest = min(earliest, now + every)  # what is later was written before a clock was set back
    due = 0 if earliest > now else math.floor((now - earliest) / every + 1e-9) + 1
    return Room(min(free, due), earliest, due <= free)


def next_at(limit: NodeLimit, earliest: float, tasks: int) -> float:
    """When the rate allows the next task after so many were let out from ``earliest`` on."""
    return earliest if limit.rate is None else earliest + tasks * rates.interval(limit.rate)

"""Limits of nodes in the tables: which tasks are held for them, and which of those their slots have room for.

What is out is counted from the rows of each slot, under a lock that only one transaction has: two coordinators never
let out one task too many. Only a rate needs a row of its own, which is forgotten when nothing went out lately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from pydantic import ValidationError

from flowkit.errors import Unreadable
from flowkit.flow import limiting, slots
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import LIMIT
from flowkit.store import cancelled, rows
from flowkit.store.database import Database, Row
from flowkit.store.protocol import Admitted, Released
from flowkit.store.refused_rows import warn_refused
from flowkit.wire import codec
from flowkit.wire import messages as wire

SLOTS = 500  # in one transaction
MOST = 500  # tasks of one slot in one transaction
FORGET = 60.0  # seconds after which a rate that nobody used is forgotten
HELD = f"t.held_for = '{LIMIT}' AND {rows.T_OUTSTANDING}"
# A paused run may have tasks that are held for their limit: a coordinator released them while another one paused it.
# A scalar subquery, so that PostgreSQL looks at the runs of the tasks that it finds, and not at all running ones.
OF_RUNNING = "(SELECT run.status FROM runs AS run WHERE run.id = t.run_id) = 'running'"
RELEASED = ("status", "held_for", "due", "sent_at", "unsent_since")


def node_limits(database: Database) -> dict[str, NodeLimit]:
    """The limits of the nodes that announced some."""
    found = database.select("SELECT name, limits FROM nodes WHERE limits IS NOT NULL")
    return {name: limit for name, raw in found if (limit := _limit(name, bytes(raw))) is not None}


@lru_cache(maxsize=10_000)
def _limit(name: str, raw: bytes) -> NodeLimit | None:
    """The limits in a row of ``nodes``; None when this version cannot read them."""
    try:
        told = wire.NodeInfo.model_validate({"name": name, **codec.loads(raw)})
    except (Unreadable, ValidationError, TypeError) as error:
        warn_refused("nodes", name, wire.explain(error) if isinstance(error, ValidationError) else str(error))
        return None
    return NodeLimit(told.limit, told.rate, told.key) if encoded(told) else None


def encoded(node: wire.NodeInfo) -> bytes | None:
    """The limits of a node as its row keeps them; None when it has none."""
    if node.limit is None and node.rate is None:
        return None
    return codec.dumps({"limit": node.limit, "rate": node.rate, "key": node.key})


def release(database: Database, due: Sequence[Row], limits: Mapping[str, NodeLimit], now: float) -> Released:
    """Held tasks whose time has come, rows of ``rows.SENDABLE``: queued, or held in their slots where there are any."""
    released = Released([], set(), [], len(due))
    free: list[Row] = []
    held: list[Row] = []
    for row in due:
        task = rows.read_sendable(row, database.id_out)
        limit = limits.get(task.node)
        if limit is None:
            free.append((*row[:2], "queued", None, None, None, now))
            released.tasks.append(task)
            continue
        try:
            slot = slots.slot(task.node, limit, partial(codec.loads, task.inputs))
        except slots.MissingKey as error:
            released.failures.append(limiting.missing_key(task.run_id, task.task_id, task.attempt, error))
        else:
            held.append((*row[:2], "held", LIMIT, None, None, None, rows.utf8(slot)))
            released.slots.add(slot)
    if free:
        database.update("tasks", rows.TASK_KEY, RELEASED, free)
    if held:
        database.update("tasks", rows.TASK_KEY, (*RELEASED, "slot"), held)
    return released


def admit(database: Database, names: Iterable[str], limits: Mapping[str, NodeLimit]) -> Admitted:
    """Let out the oldest held tasks of running runs in these slots, as many as there is room for."""
    wanted = sorted(set(names))
    some = wanted[:SLOTS]
    if not some:
        return Admitted([], more=False)
    database.lock_names(some)
    now, keys = database.now(), {name: rows.utf8(name) for name in some}
    out = _out(database, keys.values())
    next_at = _next_at(database, keys.values())
    room = {
        name: slots.room(limits.get(slots.node_of(name)), out.get(key, 0), next_at.get(key), now, MOST)
        for name, key in keys.items()
    }
    asked: list[Row] = [(keys[name], room[name].tasks) for name in some if room[name].tasks]
    found = database.first("SELECT t.run_id, t.id, t.slot FROM tasks AS t", "tasks", "slot", asked,
                           only=f"{HELD} AND {OF_RUNNING}", order="t.created_at")  # fmt: skip
    if found:
        released: list[Row] = [(run_id, task_id, "queued", None, None, None, now) for run_id, task_id, _ in found]
        database.update("tasks", rows.TASK_KEY, RELEASED, released)
    went = Counter(bytes(slot) for _, _, slot in found)
    _note_rates(database, _rates(room, next_at, went, limits), now)
    more = len(wanted) > SLOTS or any(count == MOST for count in went.values())
    return Admitted([(run_id, database.id_out(task_id)) for run_id, task_id, _ in found], more=more)


def slots_due(database: Database, now: float, limit: int) -> list[str]:
    """Slots whose rate allows something by now, or whose rate is to be forgotten."""
    select = "SELECT t.slot FROM limits AS t WHERE t.due <= :now ORDER BY t.due, t.slot LIMIT :limit"
    return [bytes(slot).decode() for (slot,) in database.select(select, {"now": now, "limit": limit})]


def slots_held(database: Database, limit: int, after: str | None = None) -> list[str]:
    """Slots behind ``after`` that hold tasks, in the order of their bytes."""
    # One step down the index for each slot, however many tasks it holds.
    step = f"SELECT t.slot FROM tasks AS t WHERE t.slot > {{}} AND {HELD} ORDER BY t.slot LIMIT 1"
    found = database.select(
        f"WITH RECURSIVE s (slot, n) AS (SELECT ({step.format(':after')}), 1 UNION ALL "
        f"SELECT ({step.format('s.slot')}), s.n + 1 FROM s WHERE s.slot IS NOT NULL AND s.n < :limit) "
        "SELECT s.slot FROM s WHERE s.slot IS NOT NULL",
        {"after": b"" if after is None else rows.utf8(after), "limit": limit},
    )
    return [bytes(slot).decode() for (slot,) in found]


def _out(database: Database, keys: Iterable[bytes]) -> dict[bytes, int]:
    """How many tasks of each slot are sent, or about to be, and not answered; cancelled ones too."""
    keys = list(keys)
    found = database.lookup("SELECT t.slot, count(*) FROM tasks AS t", "tasks", ("slot",), [(key,) for key in keys],
                            only=f"t.held_for IS NULL AND {rows.T_OUTSTANDING}", group="t.slot")  # fmt: skip
    out = Counter({bytes(key): count for key, count in found})
    # Behind the tasks: what is cancelled between the two statements is counted twice, and not left out.
    out.update(cancelled.count(database, keys))
    return out


def _next_at(database: Database, keys: Iterable[bytes]) -> dict[bytes, float]:
    """When the rates of slots allow the next task, as far as they were used lately."""
    select = "SELECT t.slot, t.next_at FROM limits AS t"
    return {bytes(key): at for key, at in database.lookup(select, "limits", ("slot",), [(key,) for key in keys])}


class _Rate(NamedTuple):
    """What is to be written of a rate; ``next_at`` None when it is gone."""

    slot: bytes
    next_at: float | None
    more: bool  # there may be tasks that it alone holds


def _rates(
    room: Mapping[str, slots.Room],
    before: Mapping[bytes, float],
    went: Mapping[bytes, int],
    limits: Mapping[str, NodeLimit],
) -> Iterator[_Rate]:
    for name, had in room.items():
        key, limit = rows.utf8(name), limits.get(slots.node_of(name))
        count = went.get(key, 0)
        if limit is None or limit.rate is None:
            if key in before:
                yield _Rate(key, None, more=False)
        elif count or key in before:
            at = slots.next_at(limit, had.earliest, count) if count else min(before[key], had.earliest)
            yield _Rate(key, at, more=had.by_rate and count == had.tasks)


def _note_rates(database: Database, rates: Iterable[_Rate], now: float) -> None:
    """When each rate allows the next task, and when to look again: then, or later, to forget it."""
    gone: list[Row] = []
    kept: list[Row] = []
    for rate in rates:
        if rate.next_at is None or (rate.next_at <= now - FORGET and not rate.more):
            gone.append((rate.slot,))
        else:
            kept.append((rate.slot, rate.next_at, max(rate.next_at, now) + (0 if rate.more else FORGET)))
    if gone:
        database.delete("limits", ("slot",), gone)
    if kept:
        database.insert("limits", ("slot",), [row[:1] for row in kept], new_only=True)
        database.update("limits", ("slot",), ("next_at", "due"), kept)

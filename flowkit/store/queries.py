"""What people ask, once for both databases.

Written as text, as the statements of the commit protocol are: a verb that only looks would wait for SQLAlchemy longer
than for its answer (0.4 s to import it, a few ms to ask). The core's events and the models of the messages take 0.1 s
more, so they stand inside the two questions that need them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowkit.errors import UsageError
from flowkit.flow import paths
from flowkit.flow.state import LIMIT
from flowkit.store.database import Database, Row
from flowkit.store.protocol import DeadLetter
from flowkit.store.refused_rows import read_row
from flowkit.store.rows import (
    BY_STATUS,
    CANCELLED_IN_SLOT,
    DEAD,
    OUTSTANDING,
    T_OUTSTANDING,
    read_dead,
    read_dead_row,
    utf8,
)
from flowkit.store.views import (
    CommandRow,
    DeadLetterRow,
    NodeCount,
    RunRow,
    ScheduleRow,
    SignalRow,
    SlotCount,
    TaskRow,
    WorkerRow,
)
from flowkit.wire import codec

if TYPE_CHECKING:
    from flowkit.flow.audit import Whole
    from flowkit.wire import messages as wire

RUN = (
    "SELECT t.id, t.node, t.status, t.started_at, t.ended_at, t.message, t.error, t.tags, t.parent, t.tasks, t.origin, "
    "coalesce(t.trimmed, 0)"
)
STAYS = "t.pruned_at IS NULL"  # what is being removed is not seen any more
TASK = (
    "SELECT t.id, t.run_id, t.path, t.scope, t.node, t.status, t.attempt, t.tries, t.held_for, t.due, t.message, "
    "t.error, t.worker, t.created_at, t.sent_at, t.first_started_at, t.started_at, t.finished_at, t.signal, t.handler, "
    "t.deaths, t.slot, t.leased_until, t.unfolded"
)
INPUTS = "coalesce(t.inputs, source.outputs)"
TASKS_AND_SOURCES = (
    "FROM tasks AS t LEFT JOIN tasks AS source ON source.run_id = t.run_id AND source.id = t.inputs_from"
)
SLOT = (
    "SELECT t.slot, count(CASE WHEN t.held_for IS NULL THEN 1 END), "
    f"count(CASE WHEN t.held_for = '{LIMIT}' THEN 1 END) FROM tasks AS t"
)
RUNNING = "JOIN runs AS run ON run.id = t.run_id WHERE run.status = 'running'"
DUE = (  # what the coordinator's loops look for
    f"SELECT min(t.due) AS due FROM tasks AS t {RUNNING} AND t.status IN ('held', 'waiting')",
    f"SELECT min(t.due) FROM scopes AS t {RUNNING} AND t.status = 'open' AND t.outstanding > 0",
    "SELECT min(t.deadline) FROM runs AS t WHERE t.ended_at IS NULL",
    "SELECT min(t.due) FROM limits AS t",
    "SELECT min(t.look_at) FROM schedules AS t",
)
LETTER = f"SELECT {', '.join(DEAD)} FROM dead"
LETTER_ROW = f"SELECT {', '.join('length(body)' if name == 'body' else name for name in DEAD)} FROM dead"


class SqlQueries:
    """What a function given to ``Store.query`` works with. See ``flowkit.store.views.Queries``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(
        self, *, limit: int, after: str | None = None, status: str | None = None, node: str | None = None,
        since: float | None = None, parent: str | None = None, tags: Mapping[str, str] | None = None,
    ) -> tuple[list[RunRow], str | None]:  # fmt: skip
        """Runs, newest first, and the cursor of the next page."""
        found: list[RunRow] = []
        wanted = tags or {}
        while True:  # the database finds tags as text, which may also stand inside another one
            page, after = self._runs(
                limit=limit, after=after, status=status, node=node, since=since, parent=parent, tags=wanted
            )
            found += [run for run in page if not wanted or wanted.items() <= codec.loads(run.tags).items()]
            if after is None or len(found) >= limit:
                break
        if len(found) > limit:
            return found[:limit], _cursor(found[limit - 1])
        return found, after

    def _runs(
        self, *, limit: int, after: str | None, status: str | None, node: str | None, since: float | None,
        parent: str | None, tags: Mapping[str, str],
    ) -> tuple[list[RunRow], str | None]:  # fmt: skip
        conditions = {
            f"{BY_STATUS} = :status": status,
            "t.node = :node": node,
            "t.started_at >= :since": since,
            "t.parent = :parent": parent,
        }
        values: dict[str, Any] = {"status": status, "node": node, "since": since, "parent": parent}
        where = [STAYS, *(condition for condition, value in conditions.items() if value is not None)]
        for number, (name, value) in enumerate(tags.items()):
            values[f"tag{number}"] = codec.dumps({name: value})[1:-1]  # as it stands among the others
            where.append(self._database.holds("t.tags", f"tag{number}"))
        if after is not None:
            values["started_at"], values["id"] = _read_cursor(after)
            where.append("(t.started_at, t.id) < (:started_at, :id)")
        page = f"{RUN} FROM runs AS t {_where(where)} ORDER BY t.started_at DESC, t.id DESC LIMIT :limit"
        found = [_run(row) for row in self._rows(page, **values, limit=limit + 1)]
        more = len(found) > limit
        found = found[:limit]
        return found, _cursor(found[-1]) if more and found else None

    def run(self, run_id: str) -> RunRow | None:
        """One run with its inputs and outputs."""
        found = self._rows(
            f"{RUN}, root.inputs, coalesce(t.outputs, source.outputs) FROM runs AS t "
            "LEFT JOIN tasks AS root ON root.run_id = t.id AND root.id = t.root "
            "LEFT JOIN tasks AS source ON source.run_id = t.id AND source.id = t.outputs_from "
            f"WHERE t.id = :id AND {STAYS}",
            id=run_id,
        )
        return _run(found[0]) if found else None

    def tasks(self, run_id: str, *, payloads: bool = False, outstanding: bool = False) -> list[TaskRow]:
        """The tasks of a run in the order of their paths."""
        every = f"{TASK}, {INPUTS}, t.outputs {TASKS_AND_SOURCES}" if payloads else f"{TASK} FROM tasks AS t"
        which = f"{every} WHERE t.run_id = :run_id" + (f" AND {T_OUTSTANDING}" if outstanding else "")
        found = [self._task(row) for row in self._rows(which, run_id=run_id)]
        return sorted(found, key=lambda task: paths.order(task.path))

    def whole(self, run_id: str) -> Whole | None:
        """One run with everything in it."""
        from flowkit.store import auditing

        return auditing.whole(self._database, run_id)

    def task_inputs(self, run_id: str, task_id: UUID) -> bytes | None:
        """The inputs of one task."""
        one = f"SELECT {INPUTS} {TASKS_AND_SOURCES} WHERE t.run_id = :run_id AND t.id = :id"
        found = self._rows(one, run_id=run_id, id=self._database.id_in(task_id))
        return found[0][0] if found else None

    def logs(
        self, *, run_id: str | None = None, node: str | None = None, since: float | None = None,
        limit: int | None = None,
    ) -> list[wire.Log]:  # fmt: skip
        """Archived log lines, oldest first; with a limit the last ones."""
        from flowkit.wire import messages as wire

        values: dict[str, Any] = {"run_id": run_id, "node": node, "since": since, "limit": limit}
        wanted = {"run_id": "run_id = :run_id", "node": "node = :node", "since": "ts >= :since"}
        where = [condition for name, condition in wanted.items() if values[name] is not None]
        newest = f"SELECT line FROM logs {_where(where)} ORDER BY ts DESC, id DESC"
        found = self._rows(newest if limit is None else f"{newest} LIMIT :limit", **values)
        lines = (read_row(wire.Log, line, "logs", "a line") for (line,) in reversed(found))
        return [line for line in lines if line is not None]

    def workers(self, *, seen_since: float) -> list[WorkerRow]:
        """Workers heard of since then, by name."""
        seen = "SELECT name, version, seen_at, stopping, announcement FROM workers WHERE seen_at >= :since"
        found = self._rows(f"{seen} ORDER BY name", since=seen_since)
        return [
            WorkerRow(name.decode(), version.decode(), seen_at, bool(stopping), announcement)
            for name, version, seen_at, stopping, announcement in found
        ]

    def nodes(self) -> list[NodeCount]:
        """Nodes with outstanding tasks, by name."""
        outstanding = f"SELECT node, status, count(*) FROM tasks WHERE {OUTSTANDING} AND status <> 'waiting'"
        counts: dict[str, Counter[str]] = {}
        for node, status, count in self._rows(f"{outstanding} GROUP BY node, status"):
            counts.setdefault(node, Counter())[status] = count
        return [
            NodeCount(node, held=count["held"], queued=count["queued"], running=count["running"])
            for node, count in sorted(counts.items())
        ]

    def slots(self, names: Iterable[str]) -> dict[str, SlotCount]:
        """What is out and held in each of these slots."""
        wanted = {utf8(name): name for name in names}
        keys: list[Row] = [(key,) for key in wanted]
        found = self._database.lookup(SLOT, "tasks", ("slot",), keys, only=T_OUTSTANDING, group="t.slot")
        counts = {wanted[bytes(key)]: SlotCount(out, held) for key, out, held in found}
        ending = self._database.lookup(CANCELLED_IN_SLOT, "cancelled_attempts", ("slot",), keys, group="t.slot")
        for key, cancelled in ending:
            count = counts.get(wanted[bytes(key)], SlotCount(0, 0))
            counts[wanted[bytes(key)]] = SlotCount(count.out + cancelled, count.held, cancelled)
        return counts

    def node_infos(self) -> list[tuple[str, bytes, float]]:
        """Every node ever announced, by name."""
        every = self._rows("SELECT name, info, announced_at FROM nodes ORDER BY name")
        return [(name, info, announced_at) for name, info, announced_at in every]

    def run_counts(self) -> dict[str, int]:
        """How many runs have each status."""
        counted = self._rows(
            f"SELECT t.status, count(*) FROM runs AS t WHERE {STAYS} GROUP BY t.status ORDER BY t.status"
        )
        return dict(counted)

    def dead(self, *, limit: int) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return [read_dead(row) for row in self._rows(f"{LETTER} ORDER BY id DESC LIMIT :limit", limit=limit)]

    def dead_rows(
        self, *, ids: Sequence[int] | None = None, reason: str | None = None, limit: int | None = None
    ) -> list[DeadLetterRow]:
        """Dead letters without their bodies, newest first: those with one of these ids and this reason, where given."""
        where: list[str] = []
        values: dict[str, Any] = {}
        if ids is not None:
            where.append(f"id IN ({', '.join(str(int(letter_id)) for letter_id in ids) or 'NULL'})")
        if reason is not None:
            where.append("reason = :reason")
            values["reason"] = utf8(reason)
        if limit is not None:
            values["limit"] = limit
        chosen = f" WHERE {' AND '.join(where)}" if where else ""
        newest = " ORDER BY id DESC" + (" LIMIT :limit" if limit is not None else "")
        return [read_dead_row(row) for row in self._rows(f"{LETTER_ROW}{chosen}{newest}", **values)]

    def dead_letter(self, letter_id: int) -> DeadLetter | None:
        """One dead letter."""
        found = self._rows(f"{LETTER} WHERE id = :id", id=letter_id)
        return read_dead(found[0]) if found else None

    def count_dead(self, reason: str | None = None) -> int:
        """How many dead letters are kept, all or those with one reason."""
        if reason is not None:
            return self.dead_counts().get(reason, 0)
        count: int = self._rows("SELECT count(*) FROM dead")[0][0]
        return count

    def dead_counts(self) -> dict[str, int]:
        """Dead letters by their reasons."""
        return {
            reason.decode(): count for reason, count in self._rows("SELECT reason, count(*) FROM dead GROUP BY reason")
        }

    def commands(self, run_id: str) -> list[CommandRow]:
        """Commands that were decided about a run, in the order they came."""
        found = self._rows(
            "SELECT id, kind, at, refused FROM commands WHERE run_id = :run_id ORDER BY at, id", run_id=run_id
        )
        return [
            CommandRow(self._database.id_out(command_id), kind, at, None if refused is None else refused.decode())
            for command_id, kind, at, refused in found
        ]

    def cancelled_attempts(self) -> int:
        """How many cancelled attempts of limited nodes have not ended, as far as anybody knows."""
        count: int = self._rows("SELECT count(*) FROM cancelled_attempts")[0][0]
        return count

    def unannounced(self) -> int:
        """How many ends of runs are still to be announced."""
        count: int = self._rows("SELECT count(*) FROM runs WHERE unannounced_since IS NOT NULL")[0][0]
        return count

    def signals(self, run_id: str) -> list[SignalRow]:
        """Signals of a run that nobody has taken yet, in the order they came."""
        kept = "SELECT id, name, input, at FROM signals WHERE run_id = :run_id ORDER BY seq"
        return [
            SignalRow(self._database.id_out(signal_id), name.decode(), value, at)
            for signal_id, name, value, at in self._rows(kept, run_id=run_id)
        ]

    def superseded(self, run_id: str) -> list[tuple[UUID, int | None, str, str, float]]:
        """Results of a run that changed nothing, in the order they came."""
        kept = "SELECT task_id, attempt, status, reason, at FROM superseded WHERE run_id = :run_id ORDER BY id"
        return [
            (self._database.id_out(task_id), attempt, status.decode(), reason.decode(), at)
            for task_id, attempt, status, reason, at in self._rows(kept, run_id=run_id)
        ]

    def schedules(self) -> list[ScheduleRow]:
        """All schedules with their last runs, by name."""
        from flowkit.store import scheduling

        every = (
            f"{scheduling.SCHEDULE}, last.status, last.started_at, last.ended_at {scheduling.WITH_ITS_LAST_RUN} "
            "ORDER BY t.name"
        )
        rows = self._rows(every)
        return [ScheduleRow(one, *row[-3:]) for row in rows if (one := scheduling.readable(row[:-3])) is not None]

    def next_due(self) -> float | None:
        """When time brings something next."""
        next_due: float | None = self._rows(f"SELECT min(due) FROM ({' UNION ALL '.join(DUE)}) AS every_kind")[0][0]
        return next_due

    def coordinated_until(self) -> float:
        """Until when the claim to the archive lasts."""
        until: float = self._rows("SELECT until FROM archive WHERE id = 1")[0][0]
        return until

    def archive_offset(self) -> int | None:
        """The offset of the last log message that was archived."""
        position: int | None = self._rows("SELECT position FROM archive WHERE id = 1")[0][0]
        return position

    def meta(self, key: str) -> str | None:
        """A fact about the store itself."""
        found = self._rows("SELECT value FROM meta WHERE key = :key", key=key)
        return found[0][0] if found else None

    def _rows(self, statement: str, **values: Any) -> list[Row]:
        return self._database.select(statement, values)

    def _task(self, row: Row) -> TaskRow:
        (
            task_id, run_id, path, scope, node, status, attempt, tries, held_for, due, message, error, worker,
            created_at, sent_at, first_started_at, started_at, finished_at, signal, handler, deaths, slot,
            leased_until, unfolded, *payloads,
        ) = row  # fmt: skip
        text_of = message.decode() if message else ""
        name = worker.decode() if worker is not None else None
        waited_for = signal.decode() if signal is not None else None
        return TaskRow(
            self._database.id_out(task_id), run_id, path, scope, node, status, attempt, tries, held_for, due, text_of,
            error, name, created_at, sent_at, first_started_at, started_at, finished_at, waited_for, bool(handler),
            deaths, slot.decode() if slot is not None else None, leased_until, unfolded,
            *payloads,
        )  # fmt: skip


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _run(row: Row) -> RunRow:
    run_id, node, status, started_at, ended_at, message, *rest = row
    return RunRow(run_id, node, status, started_at, ended_at, message.decode(), *rest)


def _cursor(last: RunRow) -> str:
    return f"{last.started_at!r}_{last.id}"


def _read_cursor(cursor: str) -> tuple[float, str]:
    started_at, _, run_id = cursor.partition("_")
    try:
        return float(started_at), run_id
    except ValueError:
        raise UsageError(f"cursor {cursor!r} is none of ours. Take the one that came with the last page.") from None

"""What people ask, in SQLAlchemy Core: once for both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, func, or_, select, text
from sqlalchemy.sql import ColumnElement

from flowkit.errors import UsageError
from flowkit.store import tables
from flowkit.store.database import Database, Row
from flowkit.store.protocol import CommandRow, DeadLetter, NodeCount, RunRow, SignalRow, TaskRow, WorkerRow
from flowkit.store.rows import DEAD, OUTSTANDING, read_dead
from flowkit.wire import codec
from flowkit.wire import messages as wire

PAGE = 1_000  # rows looked at together for their tags
_RUN = tables.runs.c
_TASK = tables.tasks.c
_DEAD_COLUMNS = tuple(tables.dead.c[name] for name in DEAD)
_RUN_COLUMNS = (
    _RUN.id, _RUN.node, _RUN.status, _RUN.started_at, _RUN.ended_at, _RUN.message, _RUN.error, _RUN.tags, _RUN.parent,
    _RUN.tasks, _RUN.origin,
)  # fmt: skip
_TASK_COLUMNS = (
    _TASK.id, _TASK.run_id, _TASK.path, _TASK.scope, _TASK.node, _TASK.status, _TASK.attempt, _TASK.tries,
    _TASK.held_for, _TASK.due, _TASK.message, _TASK.error, _TASK.worker, _TASK.created_at, _TASK.sent_at,
    _TASK.first_started_at, _TASK.started_at, _TASK.finished_at, _TASK.signal, _TASK.handler, _TASK.deaths,
    _TASK.slot, _TASK.leased_until,
)  # fmt: skip


class SqlQueries:
    """What a function given to ``Store.query`` works with. See ``flowkit.store.protocol.Queries``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(
        self, *, limit: int, after: str | None = None, status: str | None = None, node: str | None = None,
        since: float | None = None, parent: str | None = None, tags: Mapping[str, str] | None = None,
    ) -> tuple[list[RunRow], str | None]:  # fmt: skip
        """Runs, newest first, and the cursor of the next page."""
        found: list[RunRow] = []
        size = max(limit, PAGE) if tags else limit
        while True:  # no index knows tags, which are whatever people wrote: they are looked at here, page by page
            page, after = self._runs(limit=size, after=after, status=status, node=node, since=since, parent=parent)
            found += [run for run in page if not tags or tags.items() <= codec.loads(run.tags).items()]
            if after is None or len(found) >= limit:
                break
        if len(found) > limit:
            return found[:limit], _cursor(found[limit - 1])
        return found, after

    def _runs(
        self, *, limit: int, after: str | None, status: str | None, node: str | None, since: float | None,
        parent: str | None,
    ) -> tuple[list[RunRow], str | None]:  # fmt: skip
        conditions: list[ColumnElement[bool]] = []
        if after is not None:
            started_at, run_id = _read_cursor(after)
            conditions.append(or_(_RUN.started_at < started_at, and_(_RUN.started_at == started_at, _RUN.id < run_id)))
        if status is not None:
            conditions.append(_RUN.status == status)
        if node is not None:
            conditions.append(_RUN.node == node)
        if since is not None:
            conditions.append(_RUN.started_at >= since)
        if parent is not None:
            conditions.append(_RUN.parent == parent)
        page = select(*_RUN_COLUMNS).where(*conditions).order_by(_RUN.started_at.desc(), _RUN.id.desc())
        found = [_run(row) for row in self._rows(page.limit(limit + 1))]
        more = len(found) > limit
        found = found[:limit]
        return found, _cursor(found[-1]) if more and found else None

    def run(self, run_id: str) -> RunRow | None:
        """One run with its inputs and outputs."""
        root, source = tables.tasks.alias("root"), tables.tasks.alias("source")
        one = (
            select(*_RUN_COLUMNS, root.c.inputs, func.coalesce(_RUN.outputs, source.c.outputs))
            .select_from(
                tables.runs.outerjoin(root, and_(root.c.run_id == _RUN.id, root.c.id == _RUN.root)).outerjoin(
                    source, and_(source.c.run_id == _RUN.id, source.c.id == _RUN.outputs_from)
                )
            )
            .where(_RUN.id == run_id)
        )
        found = self._rows(one)
        return _run(found[0]) if found else None

    def tasks(self, run_id: str, *, payloads: bool = False) -> list[TaskRow]:
        """The tasks of a run in the order of their paths."""
        if payloads:
            source = tables.tasks.alias("source")
            origin = and_(source.c.run_id == _TASK.run_id, source.c.id == _TASK.inputs_from)
            every = select(*_TASK_COLUMNS, func.coalesce(_TASK.inputs, source.c.outputs), _TASK.outputs).select_from(
                tables.tasks.outerjoin(source, origin)
            )
        else:
            every = select(*_TASK_COLUMNS)
        found = [self._task(row) for row in self._rows(every.where(_TASK.run_id == run_id))]
        return sorted(found, key=lambda task: path_order(task.path))

    def task_inputs(self, run_id: str, task_id: UUID) -> bytes | None:
        """The inputs of one task."""
        source = tables.tasks.alias("source")
        origin = and_(source.c.run_id == _TASK.run_id, source.c.id == _TASK.inputs_from)
        one = select(func.coalesce(_TASK.inputs, source.c.outputs)).select_from(tables.tasks.outerjoin(source, origin))
        found = self._rows(one.where(_TASK.run_id == run_id, _TASK.id == self._database.id_in(task_id)))
        return found[0][0] if found else None

    def logs(
        self, *, run_id: str | None = None, node: str | None = None, since: float | None = None,
        limit: int | None = None,
    ) -> list[wire.Log]:  # fmt: skip
        """Archived log lines, oldest first; with a limit the last ones."""
        log = tables.logs.c
        newest = select(log.line).order_by(log.ts.desc(), log.id.desc()).limit(limit)
        if run_id is not None:
            newest = newest.where(log.run_id == run_id)
        if node is not None:
            newest = newest.where(log.node == node)
        if since is not None:
            newest = newest.where(log.ts >= since)
        return [wire.decode(wire.Log, line) for (line,) in reversed(self._rows(newest))]

    def workers(self, *, seen_since: float) -> list[WorkerRow]:
        """Workers heard of since then, by name."""
        worker = tables.workers.c
        seen = select(worker.name, worker.version, worker.seen_at, worker.stopping, worker.announcement)
        found = self._rows(seen.where(worker.seen_at >= seen_since).order_by(worker.name))
        return [
            WorkerRow(name.decode(), version.decode(), seen_at, bool(stopping), announcement)
            for name, version, seen_at, stopping, announcement in found
        ]

    def nodes(self) -> list[NodeCount]:
        """Nodes with outstanding tasks, by name."""
        counted = select(_TASK.node, _TASK.status, func.count()).where(text(OUTSTANDING), _TASK.status != "waiting")
        counts: dict[str, Counter[str]] = {}
        for node, status, count in self._rows(counted.group_by(_TASK.node, _TASK.status)):
            counts.setdefault(node, Counter())[status] = count
        return [
            NodeCount(node, held=count["held"], queued=count["queued"], running=count["running"])
            for node, count in sorted(counts.items())
        ]

    def node_infos(self) -> list[tuple[str, bytes, float]]:
        """Every node ever announced, by name."""
        node = tables.nodes.c
        every = select(node.name, node.info, node.announced_at).order_by(node.name)
        return [(name, info, announced_at) for name, info, announced_at in self._rows(every)]

    def run_counts(self) -> dict[str, int]:
        """How many runs have each status."""
        counted = self._rows(select(_RUN.status, func.count()).group_by(_RUN.status).order_by(_RUN.status))
        return dict(counted)

    def dead(self, *, limit: int) -> list[DeadLetter]:
        """Dead letters, newest first."""
        newest = select(*_DEAD_COLUMNS).order_by(tables.dead.c.id.desc()).limit(limit)
        return [read_dead(row) for row in self._rows(newest)]

    def dead_letter(self, letter_id: int) -> DeadLetter | None:
        """One dead letter."""
        found = self._rows(select(*_DEAD_COLUMNS).where(tables.dead.c.id == letter_id))
        return read_dead(found[0]) if found else None

    def count_dead(self) -> int:
        """How many dead letters are kept."""
        count: int = self._rows(select(func.count()).select_from(tables.dead))[0][0]
        return count

    def commands(self, run_id: str) -> list[CommandRow]:
        """Commands that were applied to a run, in the order they came."""
        command = tables.commands.c
        found = select(command.id, command.kind, command.at).where(command.run_id == run_id)
        return [
            CommandRow(self._database.id_out(command_id), kind, at)
            for command_id, kind, at in self._rows(found.order_by(command.at, command.id))
        ]

    def signals(self, run_id: str) -> list[SignalRow]:
        """Signals of a run that nobody has taken yet, in the order they came."""
        signal = tables.signals.c
        found = select(signal.id, signal.name, signal.input, signal.at).where(signal.run_id == run_id)
        return [
            SignalRow(self._database.id_out(signal_id), name.decode(), value, at)
            for signal_id, name, value, at in self._rows(found.order_by(signal.seq))
        ]

    def superseded(self, run_id: str) -> list[tuple[UUID, int | None, str, str, float]]:
        """Results of a run that changed nothing, in the order they came."""
        row = tables.superseded.c
        found = select(row.task_id, row.attempt, row.status, row.reason, row.at).where(row.run_id == run_id)
        return [
            (self._database.id_out(task_id), attempt, status.decode(), reason.decode(), at)
            for task_id, attempt, status, reason, at in self._rows(found.order_by(row.id))
        ]

    def archive_offset(self) -> int | None:
        """The offset of the last log message that was archived."""
        position: int | None = self._rows(select(tables.archive.c.position).where(tables.archive.c.id == 1))[0][0]
        return position

    def meta(self, key: str) -> str | None:
        """A fact about the store itself."""
        found = self._rows(select(tables.meta.c.value).where(tables.meta.c.key == key))
        return found[0][0] if found else None

    def _rows(self, statement: Select[Any]) -> list[Row]:
        return self._database.select(*self._database.compile(statement))

    def _task(self, row: Row) -> TaskRow:
        (
            task_id, run_id, path, scope, node, status, attempt, tries, held_for, due, message, error, worker,
            created_at, sent_at, first_started_at, started_at, finished_at, signal, handler, deaths, slot,
            leased_until, *payloads,
        ) = row  # fmt: skip
        text_of = message.decode() if message else ""
        name = worker.decode() if worker is not None else None
        waited_for = signal.decode() if signal is not None else None
        return TaskRow(
            self._database.id_out(task_id), run_id, path, scope, node, status, attempt, tries, held_for, due, text_of,
            error, name, created_at, sent_at, first_started_at, started_at, finished_at, waited_for, bool(handler),
            deaths, slot.decode() if slot is not None else None, leased_until, *payloads,
        )  # fmt: skip


def path_order(path: str) -> tuple[tuple[int, int, str], ...]:
    """The sort key of a path: segments compared as numbers, words such as ``then`` after all numbers."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in path.split("."))


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

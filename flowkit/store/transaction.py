"""One transaction of the commit protocol, over any database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from flowkit.flow.changes import Change
from flowkit.flow.events import Drained, Event, LeaseExpired, RunExpired, ScopeExpired, WaitExpired
from flowkit.flow.leases import Known, Lease
from flowkit.flow.read_progress import ReadProgress
from flowkit.flow.schedules import Schedule
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import Keys, State
from flowkit.store import (
    admission,
    announcing,
    cancelled,
    leasing,
    overdue,
    pruning,
    read_progress,
    resending,
    rows,
    scheduling,
)
from flowkit.store.database import Database, Row
from flowkit.store.effects import changed_as_a_set
from flowkit.store.kept import Kept
from flowkit.store.loading import load
from flowkit.store.protocol import (
    Admitted,
    AttemptKey,
    CancelledAttempt,
    DeadLetter,
    EndedRun,
    EndMark,
    OldLine,
    Pruned,
    Released,
    Sendable,
    SentMark,
    SentTask,
    TaskKey,
)
from flowkit.store.writing import write
from flowkit.wire import codec
from flowkit.wire import messages as wire

SENT = (
    f"{rows.T_OUTSTANDING} AND t.status IN ('queued', 'running') AND (t.sent_at < :before OR t.sent_at > :ahead) "
    "AND t.leased_until IS NULL"
)
RUNS_DUE = (  # paused ones too: a deadline is a promise to whoever waits for the run
    "SELECT t.id FROM runs AS t WHERE t.ended_at IS NULL AND t.deadline <= :now ORDER BY t.deadline, t.id"
)
HANDLING = (
    f"SELECT t.inputs FROM tasks AS t WHERE t.run_id = :run_id AND {rows.T_OUTSTANDING} AND t.handler "
    "ORDER BY t.created_at, t.id LIMIT 1"
)
SCOPES_DUE = (
    "SELECT s.run_id, s.path FROM scopes AS s JOIN runs AS t ON t.id = s.run_id "
    "WHERE s.status = 'open' AND s.due <= :now AND s.outstanding > 0 AND t.status = 'running' "
    "ORDER BY s.due, s.run_id, s.path"
)
WAITS_DUE = (
    "SELECT w.run_id, w.id FROM tasks AS w JOIN runs AS t ON t.id = w.run_id "
    "JOIN scopes AS s ON s.run_id = w.run_id AND s.path = w.scope "
    "WHERE w.status = 'waiting' AND w.due <= :now AND s.status = 'open' AND t.status = 'running' "
    "ORDER BY w.due, w.run_id, w.id"
)


class SqlTransaction:
    """What a function given to ``Store.transact`` works with. See ``flowkit.store.protocol.Transaction``."""

    def __init__(self, database: Database, kept: Kept | None = None) -> None:
        self._database, self._kept = database, Kept() if kept is None else kept

    def now(self) -> float:
        """Unix seconds, by the clock that decides."""
        return self._database.now()

    # Rounds of events

    def load(self, keys: Keys) -> State:
        """Lock the runs in the order of their ids and load what the keys name."""
        return load(self._database, keys, self._kept)

    def write(self, changes: Sequence[Change], state: State | None = None) -> list[Event]:
        """Write all rows in bulk, then carry out the effects; keep what is known of the rows from now on."""
        if state is None:
            self._kept.forget_all()
        else:
            self._kept.take(state)
            self._kept.forget(*changed_as_a_set(changes))
        return write(self._database, changes)

    # Sending

    def sendables(self, tasks: Iterable[TaskKey]) -> list[Sendable]:
        """Those of the tasks that are queued, in the order they were asked for."""
        database = self._database
        wanted = list(dict.fromkeys(tasks))
        keys = [(run_id, database.id_in(task_id)) for run_id, task_id in wanted]
        if not keys:
            return []
        found = database.lookup(rows.SENDABLE, "tasks", rows.TASK_KEY, keys, only=rows.IS_QUEUED)
        by_key = {(row[0], database.id_out(row[1])): row for row in found}
        return [rows.read_sendable(by_key[key], database.id_out) for key in wanted if key in by_key]

    def mark_sent(self, tasks: Sequence[SentMark], at: float) -> None:
        """Note that these attempts were confirmed.

        Rows that another coordinator has locked are left out: it is applying their result, and waiting for it while it
        waits for a run of ours would be a deadlock.
        """
        if not tasks:
            return
        marks = [(run_id, self._database.id_in(task_id), attempt, at, None) for run_id, task_id, attempt in tasks]
        keys = (*rows.TASK_KEY, "attempt")
        self._database.update("tasks", keys, ("sent_at", "unsent_since"), marks, only=rows.IS_SENT, wait=False)
        for mark in tasks:
            self._kept.sent(*mark, at)

    def unsent(
        self, *, before: float, limit: int, node: str | None = None, without: Collection[str] = ()
    ) -> list[Sendable]:
        """Queued tasks of running runs that are unsent since before ``before``. They count as unsent since now."""
        return resending.claim_unsent(self._database, before=before, limit=limit, node=node, without=without)

    def restore_unsent(self, tasks: Sequence[Sendable]) -> None:
        """Give back what ``unsent`` found and nobody sent: in the same order as before, and at once."""
        resending.restore_unsent(self._database, tasks)

    def release_due(self, now: float, limit: int, limits: Mapping[str, NodeLimit]) -> Released:
        """Held tasks of running runs whose time has come become queued, or are held in their slots."""
        found = resending.take(
            self._database, "t.status = 'held' AND t.due <= :time", order="t.due", time=now, limit=limit
        )
        self._kept.forget(*{row[0] for row in found})
        return admission.release(self._database, found, limits, now)

    # Limits of nodes

    def node_limits(self) -> dict[str, NodeLimit]:
        """The limits of the nodes that announced some."""
        return admission.node_limits(self._database)

    def admit(self, slots: Iterable[str], limits: Mapping[str, NodeLimit]) -> Admitted:
        """Queue the oldest tasks that are held in these slots, as many as there is room for."""
        admitted = admission.admit(self._database, slots, limits)
        self._kept.forget(*{run_id for run_id, _ in admitted.tasks})
        return admitted

    def slots_due(self, now: float, limit: int) -> list[str]:
        """Slots whose rate allows something by now."""
        return admission.slots_due(self._database, now, limit)

    def slots_held(self, limit: int, *, after: str | None = None) -> list[str]:
        """Slots that hold tasks, in the order of their bytes."""
        return admission.slots_held(self._database, limit, after)

    def expired(self, now: float, limit: int) -> list[Event]:
        """Runs whose deadline has passed, and scopes and waits of running runs whose timeout has.

        Each of these events ends what it is about, so that it is not found again. The runs are locked, as in ``load``:
        what another coordinator works on comes later.
        """
        events: list[Event] = [
            RunExpired(run_id, self._handling(run_id)) for (run_id,) in self._due(RUNS_DUE, now, limit)
        ]
        events += [ScopeExpired(run_id, path) for run_id, path in self._due(SCOPES_DUE, now, limit - len(events))]
        waits = self._due(WAITS_DUE, now, limit - len(events))
        return events + [WaitExpired(run_id, self._database.id_out(task_id)) for run_id, task_id in waits]

    def _handling(self, run_id: str) -> bytes | None:
        """The inputs of the oldest outstanding handler of a run."""
        found = self._database.select(HANDLING, {"run_id": run_id})
        return found[0][0] if found else None

    def _due(self, statement: str, now: float, limit: int) -> list[Row]:
        return self._database.select(
            f"{statement} LIMIT :limit {self._database.skip_locked}", {"now": now, "limit": limit}
        )

    def ended(self, runs: Iterable[str]) -> list[EndedRun]:
        """Those of the runs that have ended, in the order they were asked for."""
        wanted = list(dict.fromkeys(runs))
        if not wanted:
            return []
        keys: list[Row] = [(run_id,) for run_id in wanted]
        found = self._database.lookup(rows.ENDED_RUN, "runs", ("id",), keys, only="t.ended_at IS NOT NULL")
        by_id = {row[0]: row for row in found}
        return [rows.read_ended(by_id[run_id]) for run_id in wanted if run_id in by_id]

    def mark_unannounced(self, since: float) -> int:
        """Let runs that ended since then count as unannounced since now."""
        return announcing.mark_unannounced(self._database, since)

    def unannounced(self, *, before: float, limit: int) -> list[EndedRun]:
        """Ended runs whose end is unannounced since before ``before``. They count as unannounced since now."""
        return announcing.unannounced(self._database, before, limit, ahead=self.now() + resending.AHEAD)

    def mark_announced(self, ends: Sequence[EndMark]) -> None:
        """Note that the broker confirmed the messages about these ends."""
        announcing.mark_announced(self._database, ends)

    def forget_refusals(self, ids: Sequence[UUID]) -> None:
        """Let those of the commands that were refused be decided anew."""
        wanted: list[Row] = [(self._database.id_in(command_id),) for command_id in ids]
        select = "SELECT t.id FROM commands AS t"
        refused = self._database.lookup(select, "commands", ("id",), wanted, only="t.refused IS NOT NULL")
        if refused:
            self._database.delete("commands", ("id",), refused)

    # Sweeping

    def sent_before(self, before: float, limit: int, *, after: SentTask | None = None) -> list[SentTask]:
        """Tasks queued or running that were sent before ``before``, in the order of their index."""
        behind, values = "", {}
        if after is not None:
            behind = "AND (t.run_id, t.scope, t.id) > (:run_id, :scope, :id) "
            values = {"run_id": after.run_id, "scope": after.scope, "id": self._database.id_in(after.task_id)}
        found = self._database.select(
            f"SELECT t.run_id, t.id, t.node, t.attempt, t.scope, t.sent_at FROM tasks AS t WHERE {SENT} {behind}"
            "ORDER BY t.run_id, t.scope, t.id LIMIT :limit",
            {"before": before, "ahead": self.now() + resending.AHEAD, "limit": limit, **values},
        )
        return [SentTask(run_id, self._database.id_out(task_id), *rest) for run_id, task_id, *rest in found]

    def overdue(self, before: Mapping[str, float], limit: int, *, after: SentTask | None = None) -> list[SentTask]:
        """Queued tasks of running runs that were sent before the time of their node, in the order of their index."""
        if before:
            self._kept.forget(*overdue.date_anew(self._database, before))
        return overdue.overdue(self._database, before, limit, after)

    def heard(self, since: float) -> list[wire.Worker]:
        """The newest announcements of workers that were heard of since then, and are not stopping."""
        return overdue.heard(self._database, since)

    def nodes_sent(self, before: float) -> list[str]:
        """Nodes with tasks queued or running that were sent before ``before``."""
        values = {"before": before, "ahead": self.now() + resending.AHEAD}
        found = self._database.select(f"SELECT DISTINCT t.node FROM tasks AS t WHERE {SENT}", values)
        return sorted(node for (node,) in found)

    def unsend(self, tasks: Sequence[SentTask]) -> int:
        """These are to be sent again, those that nothing has happened to since they were found."""
        self._kept.forget(*{task.run_id for task in tasks})
        return sum(
            self._database.execute(
                f"UPDATE tasks SET status = 'queued', sent_at = NULL, unsent_since = {rows.AT_ONCE} "
                "WHERE run_id = :run_id AND id = :id AND attempt = :attempt AND sent_at = :sent_at "
                "AND status IN ('queued', 'running') AND leased_until IS NULL",
                {
                    "run_id": task.run_id,
                    "id": self._database.id_in(task.task_id),
                    "attempt": task.attempt,
                    "sent_at": task.sent_at,
                },
            )
            for task in sorted(tasks, key=lambda task: (task.run_id, task.task_id))  # one order for everybody
        )

    def unsend_all(self) -> int:
        """Everything outstanding is to be sent again, also what was sent a moment ago and does not say so yet."""
        self._kept.forget_all()
        return self._database.execute(
            f"UPDATE tasks SET status = 'queued', sent_at = NULL, unsent_since = {rows.AT_ONCE} "
            f"WHERE {rows.OUTSTANDING} AND status IN ('queued', 'running') "
            "AND leased_until IS NULL"  # no broker had those: their workers have them still, or fall silent
        )

    # Leases

    def known(self, tasks: Iterable[TaskKey]) -> dict[TaskKey, Known]:
        """What is known of those of the tasks that are there."""
        return leasing.known(self._database, tasks)

    def lease(self, leases: Sequence[Lease]) -> list[Lease]:
        """Grant or renew leases; returns those that hold."""
        self._kept.forget(*{lease.run_id for lease in leases})
        return leasing.lease(self._database, leases)

    def expired_leases(self, now: float, limit: int) -> list[LeaseExpired]:
        """Leases of runs under way that are over."""
        return leasing.expired(self._database, now, limit)

    def shorten_leases(self, until: float) -> None:
        """Let leases that last over a minute longer than ``until`` end then."""
        self._kept.forget(*leasing.shorten(self._database, until))

    def note_heard(self, attempts: Iterable[AttemptKey], before: float) -> None:
        """Workers announce these attempts: note it for those that are cancelled."""
        cancelled.note_heard(self._database, attempts, self.now(), before)

    def unheard_attempts(
        self, before: float, limit: int, *, after: CancelledAttempt | None = None
    ) -> list[CancelledAttempt]:
        """Cancelled attempts that count in their slots, and were not heard of since ``before``, the oldest first."""
        return cancelled.unheard(self._database, before, limit, after)

    def give_up(self, attempts: Sequence[CancelledAttempt]) -> None:
        """These attempts count in their slots no more, unless they were heard of meanwhile."""
        cancelled.give_up(self._database, attempts)

    def recount(self) -> int:
        """Compare every open scope's counter with its tasks, correct it, and return how many were wrong.

        What looks wrong is looked at again under the lock of its run: a counter may be newer than its count.
        """
        counted = (
            "SELECT s.run_id, s.path, n.found FROM scopes AS s JOIN ("
            "SELECT o.run_id, o.path, "
            f"(SELECT count(*) FROM tasks WHERE run_id = o.run_id AND scope = o.path AND {rows.OUTSTANDING}) + "
            "(SELECT count(*) FROM scopes AS c WHERE c.run_id = o.run_id AND c.parent = o.path AND c.status = 'open') "
            "AS found FROM scopes AS o WHERE o.status = 'open'"
            ") AS n ON n.run_id = s.run_id AND n.path = s.path WHERE s.outstanding <> n.found"
        )
        suspects = sorted({row[0] for row in self._database.select(counted)})
        if not suspects:
            return 0
        locked: list[Row] = [(run_id,) for run_id in suspects]
        self._database.lookup(rows.RUN_STATE, "runs", ("id",), locked, lock=True)
        wrong = [row for row in self._database.select(counted) if row[0] in suspects]
        if wrong:
            self._database.update("scopes", ("run_id", "path"), ("outstanding",), wrong)
            self._kept.forget(*suspects)
        return len(wrong)

    def drained(self, limit: int) -> list[Drained]:
        """Open scopes in which nothing is outstanding."""
        found = self._database.select(
            "SELECT s.run_id, s.path FROM scopes AS s JOIN runs AS t ON t.id = s.run_id "
            "WHERE s.status = 'open' AND s.outstanding = 0 AND t.status IN ('running', 'paused') "
            "ORDER BY s.run_id, s.path LIMIT :limit",
            {"limit": limit},
        )
        return [Drained(run_id, path) for run_id, path in found]

    # Workers, dead letters

    def record_workers(self, announcements: Sequence[wire.Worker], at: float) -> None:
        """The newest announcement of each worker, and of each node."""
        self._record_nodes(announcements, at)
        newest = {rows.utf8(announcement.worker): announcement for announcement in announcements}
        for name in sorted(newest):  # one order for everybody: no deadlocks
            announcement = newest[name]
            self._database.execute(
                "INSERT INTO workers (name, version, seen_at, stopping, announcement) "
                "VALUES (:name, :version, :at, :stopping, :announcement) ON CONFLICT (name) DO UPDATE SET "
                "version = excluded.version, seen_at = excluded.seen_at, stopping = excluded.stopping, "
                "announcement = excluded.announcement",
                {
                    "name": name,
                    "version": rows.utf8(announcement.version),
                    "at": at,
                    "stopping": announcement.stopping,
                    "announcement": announcement.encode(),
                },
            )

    def _record_nodes(self, announcements: Sequence[wire.Worker], at: float) -> None:
        newest = {node.name: node for announcement in announcements for node in announcement.nodes}
        for name in sorted(newest):
            node = newest[name]
            self._database.execute(
                "INSERT INTO nodes (name, on_error, limits, info, announced_at) "
                "VALUES (:name, :on_error, :limits, :info, :at) ON CONFLICT (name) DO UPDATE SET "
                "on_error = excluded.on_error, limits = excluded.limits, info = excluded.info, "
                "announced_at = excluded.announced_at WHERE nodes.announced_at <= excluded.announced_at",
                {
                    "name": name,
                    "on_error": node.on_error,
                    "limits": admission.encoded(node),
                    "info": codec.dumps(node.model_dump(exclude_unset=True)),
                    "at": at,
                },
            )

    def record_progress(self, progress: ReadProgress) -> list[ReadProgress]:
        """Write the row of a coordinator, and return those of all coordinators."""
        return read_progress.record(self._database, progress)

    def remove_progress(self, ids: Iterable[UUID]) -> None:
        """Remove the rows of coordinators that have stopped, or are gone."""
        read_progress.remove(self._database, ids)

    def add_dead(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters."""
        if letters:
            self._database.insert("dead", rows.DEAD[1:], [rows.dead_row(letter) for letter in letters])

    def find_dead(self, ids: Sequence[int]) -> list[DeadLetter]:
        """Those of the dead letters that are there, in the order of their ids."""
        return [rows.read_dead(row) for row in self._dead(ids, rows.DEAD)]

    def remove_dead(self, ids: Sequence[int]) -> None:
        """Remove dead letters. Those that are not there any more do no harm."""
        if found := self._dead(ids, ("id",)):
            self._database.delete("dead", ("id",), found)

    def _dead(self, ids: Sequence[int], columns: Sequence[str]) -> list[Row]:
        """These columns, ``id`` first, of the dead letters that are there; their rows are locked."""
        if not ids:
            return []
        wanted: list[Row] = [(letter_id,) for letter_id in set(ids)]
        select = f"SELECT {', '.join(f't.{name}' for name in columns)} FROM dead AS t"
        return sorted(self._database.lookup(select, "dead", ("id",), wanted, lock=True), key=lambda row: row[0])

    # What is old, and what comes again

    def prune(self, before: float, limit: int) -> Pruned:
        """Remove runs that ended before ``before``; a step of it."""
        return pruning.prune(self._database, before, limit)

    def prune_lines(self, before: float, limit: int, *, behind: OldLine | None = None) -> tuple[int, OldLine | None]:
        """Look at old log lines, and remove those of no run."""
        return pruning.prune_lines(self._database, before, limit, behind)

    def prune_workers(self, before: float, limit: int) -> int:
        """Forget workers that were not heard of since ``before``."""
        return pruning.prune_workers(self._database, before, limit)

    def due_schedules(self, now: float, limit: int) -> list[tuple[Schedule, bool]]:
        """Schedules to be looked at, and whether the last run of each is under way."""
        return scheduling.due(self._database, now, limit)

    def move_schedules(self, schedules: Sequence[Schedule]) -> None:
        """Write what became of schedules."""
        scheduling.move(self._database, schedules)

    def schedule(self, name: str) -> Schedule | None:
        """One schedule, locked."""
        return scheduling.find(self._database, name)

    def put_schedule(self, schedule: Schedule) -> None:
        """Add a schedule, in the place of one that has its name."""
        scheduling.put(self._database, schedule)

    def remove_schedule(self, name: str) -> bool:
        """Remove a schedule."""
        return scheduling.remove(self._database, name)

    # The archive of logs

    def archive_claim(self, owner: str, now: float, lease: float) -> bool:
        """Be the one archiver, for ``lease`` seconds from now.

        A claim that lasts longer than twice that was written before a clock was set back, and does not count.
        """
        claimed = self._database.execute(
            "UPDATE archive SET owner = :owner, until = :until "
            "WHERE id = 1 AND (owner = :owner OR until <= :now OR until > :ahead)",
            {"owner": owner, "until": now + lease, "now": now, "ahead": now + 2 * lease},
        )
        return claimed == 1

    def archive_offset(self) -> int | None:
        """The offset of the last log message that was archived."""
        position: int | None = self._database.select("SELECT position FROM archive WHERE id = 1")[0][0]
        return position

    def archive(self, lines: Sequence[wire.Log], offset: int | None) -> None:
        """Add log lines and commit the offset with them."""
        columns = ("ts", "run_id", "node", "worker", "seq", "line")
        if lines:
            self._database.insert("logs", columns, [_log_row(line) for line in lines], new_only=True)
        self._database.execute("UPDATE archive SET position = :offset WHERE id = 1", {"offset": offset})

    # Facts about the store

    def meta(self, key: str, *, lock: bool = False) -> str | None:
        """A fact about the store itself."""
        found = self._database.lookup("SELECT t.value FROM meta AS t", "meta", ("key",), [(key,)], lock=lock)
        return found[0][0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Write such a fact."""
        self._database.execute(
            "INSERT INTO meta (key, value) VALUES (:key, :value) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            {"key": key, "value": value},
        )


def _log_row(line: wire.Log) -> Row:
    worker = None if line.worker is None else rows.utf8(line.worker)
    return (line.ts, line.run_id, line.node, worker, line.seq, line.encode())

"""What is done with dead letters: choose, publish again, remove; and the queue that nobody decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flowkit.cli.resources import PATIENCE, broker_of, store_of
from flowkit.cli.runs.selection import agreed
from flowkit.errors import BrokerBlocked, NotFound, Refused, UsageError

if TYPE_CHECKING:
    from flowkit.errors import PublishError
    from flowkit.settings import Settings
    from flowkit.store.protocol import DeadLetter, Store, Transaction
    from flowkit.store.views import DeadLetterRow, Queries

STEP = 100  # letters published, or removed, together
STEP_BYTES = 16 * 1024 * 1024  # of their bodies, where there are several


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters: by number, all of them, or those with a reason."""

    ids: tuple[int, ...] = ()
    reason: str | None = None

    def rows(self, query: Queries) -> list[DeadLetterRow]:
        """Their rows, without bodies; those that are not named, newest first.

        Raises:
            NotFound: one that was named is not there.
        """
        if not self.ids:
            return query.dead_rows(reason=self.reason)
        found = {row.id: row for row in query.dead_rows(ids=self.ids)}
        for letter_id in self.ids:
            if letter_id not in found:
                raise _missing(letter_id)
        return [found[letter_id] for letter_id in dict.fromkeys(self.ids)]


def choice(ids: Sequence[int] | None, reason: str | None, *, everything: bool) -> Choice:
    """From the words of a command line.

    Raises:
        UsageError: nothing was chosen, or in several ways.
    """
    if sum((bool(ids), everything, reason is not None)) != 1:
        raise UsageError("which dead letters? Give their numbers, or --reason REASON, or --all")
    return Choice(tuple(ids or ()), reason)


async def page(settings: Settings, reason: str | None, limit: int) -> tuple[list[DeadLetterRow], int]:
    """The newest ``limit`` letters, all or with one reason, and how many there are."""
    async with store_of(settings) as store:
        return await store.query(lambda query: (query.dead_rows(reason=reason, limit=limit), query.count_dead(reason)))


async def find(settings: Settings, letter_id: int) -> DeadLetter:
    """One letter with its body.

    Raises:
        NotFound
    """
    async with store_of(settings) as store:
        letter = await store.query(lambda query: query.dead_letter(letter_id))
    if letter is None:
        raise _missing(letter_id)
    return letter


async def replay(settings: Settings, chosen: Choice, *, dry_run: bool, yes: bool) -> None:
    """Publish letters again to the queues they came from; each is removed once its message is there.

    Raises:
        Refused: a queue is not there, or is none of this namespace; its letters are kept.
    """
    from flowkit.coordinator.replaying import check_queue, message_of
    from flowkit.coordinator.replaying import replay as publish
    from flowkit.wire.topology import Topology

    topology = Topology(settings.namespace)
    async with store_of(settings) as store:
        rows = await _agreed(store, chosen, "replay", dry_run=dry_run, yes=yes)
        for row in rows:  # before anything is published
            check_queue(row, topology)
        if rows:
            async with broker_of(settings) as broker:
                for ids in _steps(rows):
                    if (alarm := await broker.find_alarm(PATIENCE)) is not None:
                        raise BrokerBlocked(broker.url, alarm)
                    letters = await store.query(partial(_read, ids))
                    messages = [message_of(letter, topology) for letter in letters]
                    _tell(letters, await publish(broker, store, letters, messages))


async def discard(settings: Settings, chosen: Choice, *, dry_run: bool, yes: bool) -> None:
    """Remove letters for good."""
    async with store_of(settings) as store:
        rows = await _agreed(store, chosen, "discard", dry_run=dry_run, yes=yes)
        for ids in _steps(rows):
            await store.transact(partial(_remove, ids))
        if rows:
            _say(f"{_count(len(rows))} discarded")


async def unreadable(settings: Settings) -> int:
    """How many messages wait in the queue that nobody decodes."""
    from flowkit.wire.topology import Topology

    async with broker_of(settings) as broker:
        state = await broker.inspect(Topology(settings.namespace).unreadable.name)
    return state.ready if state else 0


async def empty_unreadable(settings: Settings, *, dry_run: bool, yes: bool) -> None:
    """Empty that queue, without anybody decoding what is in it: it is deleted and made anew."""
    from flowkit.wire.topology import Topology

    queue = Topology(settings.namespace).unreadable
    async with broker_of(settings) as broker:
        state = await broker.inspect(queue.name)
        count = state.ready if state else 0
        _say(f"{count:,} messages in {queue.name}")
        if not count or dry_run or not agreed(f"discard {count:,} messages", yes=yes):
            return
        await broker.delete(queue.name)
        await broker.declare([queue])
        _say(f"{count:,} messages discarded")


async def _agreed(store: Store, chosen: Choice, verb: str, *, dry_run: bool, yes: bool) -> list[DeadLetterRow]:
    """The letters to do it with; none when it is not to be done after all."""
    from flowkit.cli.render.output import data

    rows = await store.query(chosen.rows)
    if not chosen.ids or dry_run:
        _say(f"{_count(len(rows))} to {verb}")
    if dry_run:
        for row in rows:
            data(str(row.id))
        return []
    sure = len(rows) <= 1 or chosen.ids or agreed(f"{verb} {_count(len(rows))}", yes=yes)
    return rows if sure else []


def _steps(rows: Sequence[DeadLetterRow]) -> Iterator[list[int]]:
    """The ids, in steps whose bodies fit into memory together."""
    step: list[int] = []
    size = 0
    for row in rows:
        if step and (len(step) == STEP or size + row.size > STEP_BYTES):
            yield step
            step, size = [], 0
        step.append(row.id)
        size += row.size
    if step:
        yield step


def _read(ids: Sequence[int], query: Queries) -> list[DeadLetter]:
    """Those that nobody has removed meanwhile."""
    return [letter for letter_id in ids if (letter := query.dead_letter(letter_id)) is not None]


def _remove(ids: Sequence[int], transaction: Transaction) -> None:
    transaction.remove_dead(ids)


def _tell(letters: Sequence[DeadLetter], verdicts: Sequence[PublishError | None]) -> None:
    for letter, verdict in zip(letters, verdicts, strict=True):
        if verdict is None:
            _say(f"dead letter {letter.id} is in {letter.queue} again")
    for letter, verdict in zip(letters, verdicts, strict=True):
        if verdict is not None:
            raise Refused(f"dead letter {letter.id} is kept, its queue {letter.queue!r} does not take it: {verdict}")


def _missing(letter_id: int) -> NotFound:
    return NotFound("dead letter", str(letter_id), "'flowkit dead list' shows those that are there.")


def _count(number: int) -> str:
    return f"{number:,} dead letter{'' if number == 1 else 's'}"


def _say(text: str) -> None:
    from flowkit.cli.render.output import say

    say(text)

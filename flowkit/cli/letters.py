"""What is done with dead letters: choose, publish again, remove; and the queue that nobody decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkit.cli.parts import PATIENCE, broker_of, store_of
from flowkit.cli.selection import agreed
from flowkit.errors import BrokerBlocked, NotFound, Refused, UsageError

if TYPE_CHECKING:
    from flowkit.errors import PublishError
    from flowkit.settings import Settings
    from flowkit.store.protocol import DeadLetter, Store
    from flowkit.store.views import Queries

STEP = 100  # letters published, or removed, together


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters: by number, all of them, or those with a reason."""

    ids: tuple[int, ...] = ()
    reason: str | None = None

    def letters(self, query: Queries) -> list[DeadLetter]:
        """The letters; those that are not named, newest first.

        Raises:
            NotFound: one that was named is not there.
        """
        if self.ids:
            return [_named(query, letter_id) for letter_id in dict.fromkeys(self.ids)]
        every = query.dead(limit=query.count_dead())
        return [letter for letter in every if self.reason in (None, letter.reason)]


def choice(ids: Sequence[int] | None, reason: str | None, *, everything: bool) -> Choice:
    """From the words of a command line.

    Raises:
        UsageError: nothing was chosen, or in several ways.
    """
    if sum((bool(ids), everything, reason is not None)) != 1:
        raise UsageError("which dead letters? Give their numbers, or --reason REASON, or --all")
    return Choice(tuple(ids or ()), reason)


async def look(settings: Settings, chosen: Choice) -> list[DeadLetter]:
    """The letters, as they are."""
    async with store_of(settings) as store:
        return await store.query(chosen.letters)


async def replay(settings: Settings, chosen: Choice, *, dry_run: bool, yes: bool) -> None:
    """Publish letters again to the queues they came from; each is removed once its message is there.

    Raises:
        Refused: a queue is not there, or is none of this namespace; its letters are kept.
    """
    from flowkit.coordinator.replaying import message_of
    from flowkit.coordinator.replaying import replay as publish
    from flowkit.wire.topology import Topology

    topology = Topology(settings.namespace)
    async with store_of(settings) as store:
        letters = await _agreed(store, chosen, "replay", dry_run=dry_run, yes=yes)
        messages = [message_of(letter, topology) for letter in letters]  # before anything is published
        if letters:
            async with broker_of(settings) as broker:
                for begin in range(0, len(letters), STEP):
                    step = slice(begin, begin + STEP)
                    if (alarm := await broker.find_alarm(PATIENCE)) is not None:
                        raise BrokerBlocked(broker.url, alarm)
                    _tell(letters[step], await publish(broker, store, letters[step], messages[step]))


async def discard(settings: Settings, chosen: Choice, *, dry_run: bool, yes: bool) -> None:
    """Remove letters for good."""
    async with store_of(settings) as store:
        letters = await _agreed(store, chosen, "discard", dry_run=dry_run, yes=yes)
        for begin in range(0, len(letters), STEP):
            await _remove(store, letters[begin : begin + STEP])
        if letters:
            _say(f"{_count(len(letters))} discarded")


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


async def _agreed(store: Store, chosen: Choice, verb: str, *, dry_run: bool, yes: bool) -> list[DeadLetter]:
    """The letters to do it with; none when it is not to be done after all."""
    from flowkit.cli.output import data

    letters = await store.query(chosen.letters)
    if not chosen.ids or dry_run:
        _say(f"{_count(len(letters))} to {verb}")
    if dry_run:
        for letter in letters:
            data(str(letter.id))
        return []
    sure = len(letters) <= 1 or chosen.ids or agreed(f"{verb} {_count(len(letters))}", yes=yes)
    return letters if sure else []


def _tell(letters: Sequence[DeadLetter], verdicts: Sequence[PublishError | None]) -> None:
    for letter, verdict in zip(letters, verdicts, strict=True):
        if verdict is None:
            _say(f"dead letter {letter.id} is in {letter.queue} again")
    for letter, verdict in zip(letters, verdicts, strict=True):
        if verdict is not None:
            raise Refused(f"dead letter {letter.id} is kept, its queue {letter.queue!r} does not take it: {verdict}")


async def _remove(store: Store, letters: Sequence[DeadLetter]) -> None:
    ids = [letter.id for letter in letters if letter.id is not None]
    await store.transact(lambda transaction: transaction.take_dead(ids))


def _named(query: Queries, letter_id: int) -> DeadLetter:
    letter = query.dead_letter(letter_id)
    if letter is None:
        raise NotFound("dead letter", str(letter_id), "'flowkit dead list' shows those that are there.")
    return letter


def _count(number: int) -> str:
    return f"{number:,} dead letter{'' if number == 1 else 's'}"


def _say(text: str) -> None:
    from flowkit.cli.output import say

    say(text)

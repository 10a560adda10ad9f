"""Dead letters go back to the queues they came from: on a ``replay`` command, or from the command line.

A letter is published first and removed then. Whoever dies in between leaves it where it is, and it is published again
when the command comes again: twice in a queue is harmless (what it says is applied once), lost would not be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.coordinator.ledger import Ledger
from flowkit.errors import PublishError, Refused, Unreadable
from flowkit.flow.changes import NoteCommand
from flowkit.flow.state import Keys
from flowkit.store.protocol import DeadLetter, Transaction
from flowkit.store.views import DeadLetterRow
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

STEP = 100  # letters published, or removed, together
TOLD = 20  # numbers in the reason of a refusal
T = TypeVar("T")


class Keeper(Protocol):
    """What keeps dead letters: a store, or a ledger over one."""

    def transact(self, function: Callable[[Transaction], T]) -> Awaitable[T]:
        """Run ``function`` in one transaction."""


def message_of(letter: DeadLetter, topology: Topology) -> Outgoing:
    """The message as it was. Its queue was a routing key, which anybody may have made up: it must be one of ours.

    Raises:
        Refused: it came from no queue that work is done from.
    """
    check_queue(letter, topology)
    properties = codec.loads(letter.properties)
    return Outgoing(
        exchange="",  # straight into the queue, whatever is bound today
        key=letter.queue,
        body=letter.body,
        type=properties.get("type", "unknown"),
        correlation_id=properties.get("correlation_id"),
        app_id=properties.get("app_id"),
        message_id=properties.get("message_id"),  # a start without a run id gets its id from it
    )


def check_queue(letter: DeadLetter | DeadLetterRow, topology: Topology) -> None:
    """Refuse a letter from a queue that is none of ours.

    Raises:
        Refused: it came from no queue that work is done from.
    """
    ours = {queue.name for queue in (topology.starts, topology.results, topology.commands)}
    if letter.queue not in ours and not letter.queue.startswith(topology.name("tasks", "")):
        raise Refused(
            f"dead letter {letter.id} came from {letter.queue!r}, which is no queue of namespace "
            f"{topology.namespace!r} that work is done from. It can be shown and discarded."
        )


async def replay(
    broker: Broker, keeper: Keeper, letters: Sequence[DeadLetter], messages: Sequence[Outgoing]
) -> list[PublishError | None]:
    """Publish letters, and remove those that are in their queues again. Commands among them are decided anew.

    Returns:
        for each letter None, or why its queue does not take it: it is kept.
    """
    if commands := [command for letter in letters if (command := _command_id(letter)) is not None]:
        await keeper.transact(lambda transaction: transaction.forget_refusals(commands))
    verdicts = await broker.publish(messages)
    there = [letter.id for letter, verdict in zip(letters, verdicts, strict=True) if verdict is None]
    ids = [letter_id for letter_id in there if letter_id is not None]
    await keeper.transact(lambda transaction: transaction.remove_dead(ids))
    return verdicts


def _command_id(letter: DeadLetter) -> UUID | None:
    """The id of the command that a letter may be; None when it is something else."""
    try:
        return wire.decode(wire.Command, letter.body).id
    except Unreadable:
        return None


class Replays:
    """Carries out ``replay`` commands, each once by its id."""

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger) -> None:
        self._broker, self._topology, self._ledger = broker, topology, ledger

    async def carry_out(self, command: wire.Command) -> str | None:
        """Publish and remove the letters that the command names.

        Returns:
            why some of them, or all, are not replayed; None when all are, or were when it came before.
        """
        wanted = sorted(set(command.letters))
        if not wanted:
            return "a replay names dead letters: letters, by their numbers"
        decided, refused = await self._ledger.transact(partial(_decision, command))
        if decided:
            return refused  # its dead letter may not have left
        missing: list[int] = []
        problems: list[str] = []
        for begin in range(0, len(wanted), STEP):
            step = wanted[begin : begin + STEP]
            letters = await self._ledger.transact(partial(_find, step))
            missing += set(step) - {letter.id for letter in letters}
            problems += await self._replay(letters)
        if missing:
            numbers = ", ".join(map(str, sorted(missing)[:TOLD])) + (" …" if len(missing) > TOLD else "")
            problems.append(f"there is no dead letter {numbers}")
        why = "; ".join(problems[:TOLD]) or None
        await self._ledger.transact(partial(_note, command, why))
        return why

    async def _replay(self, letters: Sequence[DeadLetter]) -> list[str]:
        """Replay those that may be; the problems with the others."""
        problems: list[str] = []
        messages: list[tuple[DeadLetter, Outgoing]] = []
        for letter in letters:
            try:
                messages.append((letter, message_of(letter, self._topology)))
            except Refused as error:
                problems.append(str(error))
        fit = [letter for letter, _ in messages]
        verdicts = await replay(self._broker, self._ledger, fit, [message for _, message in messages])
        return problems + [
            f"dead letter {letter.id} is kept, its queue {letter.queue!r} does not take it: {verdict}"
            for letter, verdict in zip(fit, verdicts, strict=True)
            if verdict is not None
        ]


def _find(ids: Sequence[int], transaction: Transaction) -> list[DeadLetter]:
    return transaction.find_dead(ids)


def _decision(command: wire.Command, transaction: Transaction) -> tuple[bool, str | None]:
    """Whether the command was decided before, and why it was refused."""
    nothing: frozenset[str] = frozenset()
    keys = Keys(runs=nothing, roots=nothing, tasks=frozenset(), scopes=frozenset(), commands=frozenset({command.id}))
    state = transaction.load(keys)
    return command.id in state.commands, state.refusals.get(command.id)


def _note(command: wire.Command, refused: str | None, transaction: Transaction) -> None:
    """It is about no run, so it is noted without one; and once, whoever else carries it out, or did without knowing."""
    decided, _ = _decision(command, transaction)
    if not decided:
        transaction.write([NoteCommand("", command.id, command.kind, transaction.now(), refused)])

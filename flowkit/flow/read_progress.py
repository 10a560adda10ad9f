"""Whether everything that waited in the coordinators' queues at a moment has been committed: judged from rows.

A queue that has no messages ready may still have messages that were delivered to a coordinator and wait there for its
store. AMQP does not show them. So each coordinator counts its beats in a row of the store, and writes there at which
beat its consumers began and up to which beat it has committed what was delivered to it. Beats are compared with beats
of the same row only, so that no clock decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple
from uuid import UUID


class ReadProgress(NamedTuple):
    """The row of one coordinator process.

    Args:
        id: of the process; a name may be used again.
        name: of the coordinator, for people.
        beat: rises by 1 each time that the row is written.
        attached: the first beat since which all of its consumers have been connected, without a gap in which
            something delivered to them was given back.
        committed: everything delivered to it before the end of this beat is committed.
    """

    id: UUID
    name: str
    beat: int
    attached: int
    committed: int


class QueueCounts(NamedTuple):
    """What the broker says of a queue."""

    ready: int
    consumers: int


class Verdict(Enum):
    """Whether everything was committed that had been published before the queues were inspected."""

    YES = auto()
    NO = auto()  # somebody may hold some of it, and further beats cannot show otherwise
    UNDECIDED = auto()  # further beats may


Rows = Mapping[UUID, ReadProgress]


def everything_committed(before: Rows, queues: Sequence[QueueCounts | None], after: Rows, now: Rows) -> Verdict:
    """Judge what was published before the queues were inspected.

    What was not ready then was either committed or held by a consumer. The consumers are the coordinators of the rows
    and nobody else when there are as many, and when each row has been attached since before the inspection. None of
    them has given anything back since, so what each one held is committed when it has committed what was delivered to
    it before a beat that came after the inspection.

    Args:
        before: the rows, read before the inspection.
        queues: the state of each queue; None: it does not exist.
        after: the rows, read after the inspection.
        now: the rows, read at any time later.
    """
    if any(queue is None or queue.ready or queue.consumers != len(before) for queue in queues):
        return Verdict.NO
    if not before.keys() == after.keys() <= now.keys():
        return Verdict.NO
    if any(now[id_].attached > row.beat for id_, row in before.items()):
        return Verdict.NO
    return Verdict.YES if all(now[id_].committed > row.beat for id_, row in after.items()) else Verdict.UNDECIDED

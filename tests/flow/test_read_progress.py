"""Whether everything that waited in queues is committed: the judgement, as examples and as a property."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.flow.read_progress import QueueCounts, ReadProgress, Rows, Verdict, everything_committed

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)
EMPTY = QueueCounts(ready=0, consumers=2)


def rows(**beats: tuple[int, int, int]) -> Rows:
    """Rows by name: beat, attached, committed."""
    ids = {"a": A, "b": B, "c": C}
    return {ids[name]: ReadProgress(ids[name], name, *row) for name, row in beats.items()}


BEFORE = rows(a=(10, 1, 8), b=(20, 15, 18))
AFTER = rows(a=(11, 1, 9), b=(20, 15, 18))


@pytest.mark.parametrize(
    ("queues", "now", "verdict"),
    [
        ([EMPTY], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.YES),
        ([EMPTY, EMPTY], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.YES),
        # What one of them had when the queue was inspected may not be committed yet.
        ([EMPTY], AFTER, Verdict.UNDECIDED),
        ([EMPTY], rows(a=(14, 1, 12), b=(20, 15, 18)), Verdict.UNDECIDED),
        ([EMPTY], rows(a=(14, 1, 11), b=(23, 15, 21)), Verdict.UNDECIDED),
        # It gave something back, to whomever.
        ([EMPTY], rows(a=(14, 1, 12), b=(24, 21, 22)), Verdict.NO),
        ([EMPTY], rows(a=(14, 1, 12)), Verdict.NO),
        # Who began later has nothing to do with it.
        ([EMPTY], rows(a=(14, 1, 12), b=(23, 15, 21), c=(1, 1, 0)), Verdict.YES),
        ([QueueCounts(1, 2)], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.NO),
        ([EMPTY, QueueCounts(1, 2)], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.NO),
        ([None], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.NO),
        # Somebody without a row: an older coordinator, or one whose store is away.
        ([QueueCounts(0, 3)], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.NO),
        # Somebody without a consumer: one who is dead, or has given all back.
        ([QueueCounts(0, 1)], rows(a=(14, 1, 12), b=(23, 15, 21)), Verdict.NO),
    ],
)
def test_examples(queues, now, verdict):
    assert everything_committed(BEFORE, queues, AFTER, now) is verdict


@pytest.mark.parametrize("after", [rows(a=(11, 1, 9)), rows(a=(11, 1, 9), b=(20, 15, 18), c=(1, 1, 0))])
def test_rows_that_came_or_went_during_the_inspection_say_nothing(after):
    now = rows(a=(14, 1, 12), b=(23, 15, 21), c=(9, 1, 8))
    assert everything_committed(BEFORE, [EMPTY], after, now) is Verdict.NO


class Member:
    """A coordinator that writes its row as ``ReadProgressRecorder`` does, over a queue of one message."""

    def __init__(self, number: int) -> None:
        self.id = UUID(int=number)
        self.row = ReadProgress(self.id, f"c{number}", 0, 0, 0)
        self.consumes, self.holds = True, False
        self.changed, self.mark = True, None
        self.written = False

    def beat(self) -> None:
        beat, attached, committed = self.row.beat + 1, self.row.attached, self.row.committed
        if self.changed or not self.consumes:
            attached, self.mark = beat, None
        elif self.mark is not None and not self.holds:
            committed, self.mark = self.mark, None
        self.changed = False
        self.row = self.row._replace(beat=beat, attached=attached, committed=committed)
        self.written = True
        if self.mark is None and self.consumes:
            self.mark = beat


STEPS = ("beat", "deliver", "commit", "leave", "return", "forget")


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2)), min_size=5, max_size=60), st.data())
def test_a_message_that_is_not_committed_is_never_said_to_be(steps, data):
    """One message is published at the beginning; whatever happens then, the verdict is never wrong."""
    members = [Member(number) for number in range(1, 4)]
    state = "ready"
    inspected = data.draw(st.integers(0, len(steps)))
    read_after = data.draw(st.integers(inspected, len(steps)))
    before_at = data.draw(st.integers(0, inspected))
    before = after = queue = None

    def stored() -> Rows:
        return {member.id: member.row for member in members if member.written}

    for at in range(len(steps) + 1):
        if at == before_at:
            before = stored()
        if at == inspected:
            queue = QueueCounts(int(state == "ready"), sum(member.consumes for member in members))
        if at == read_after:
            after = stored()
        if at >= read_after and everything_committed(before, [queue], after, stored()) is Verdict.YES:
            assert state == "committed"
        if at == len(steps):
            return
        step, member = steps[at][0], members[steps[at][1]]
        match step:
            case "beat":
                member.beat()
            case "deliver" if state == "ready" and member.consumes:
                member.holds, state = True, "held"
            case "commit" if member.holds:
                member.holds, state = False, "committed"
            case "leave" if member.consumes:
                member.consumes, member.changed = False, True
                if member.holds:
                    member.holds, state = False, "ready"
            case "return" if not member.consumes:
                member.consumes = member.changed = True
            case "forget":
                member.written = False

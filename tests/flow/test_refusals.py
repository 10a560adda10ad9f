"""Notes about queues that refuse tasks."""

from __future__ import annotations

from flowkit.flow.refusals import note, read_reason


def test_a_note_counts_while_it_is_fresh():
    noted = note("it is full", 1000.0)
    assert read_reason(noted, 1001.0) == "it is full"
    assert read_reason(noted, 1031.0) is None, "its coordinator is gone"
    assert read_reason(note(None, 1000.0), 1000.0) is None
    assert read_reason(None, 1000.0) is None

"""Ids that clients give to runs."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest

from flowkit.client import ids


def test_an_id_is_a_uuid_of_version_7_and_no_two_are_the_same() -> None:
    made = {ids.new_run_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {(UUID(one).version, UUID(one).variant) for one in made} == {(7, RFC_4122)}
    assert {len(one) for one in made} == {32}


def test_ids_stand_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0, 1_000_000, 1_764_000_000_000_000_000, 1_764_000_000_001_000_000, 2**62]
    made = []
    for moment in moments:
        monkeypatch.setattr(ids.time, "time_ns", lambda moment=moment: moment)
        made.append(ids.new_run_id())
    assert made == sorted(made)

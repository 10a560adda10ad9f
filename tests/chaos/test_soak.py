"""The soak itself: a quarter of a minute of it runs, it notices what grows, and its picture can be looked at."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.chaos.plot import charts
from tests.chaos.soak import Soak, play


@pytest.mark.timeout(120)
async def test_a_quarter_of_a_minute(private_rabbitmq, postgres_database, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.chaos.soak.EVERY", 2.0)
    monkeypatch.setattr("tests.chaos.soak.FAULT_EVERY", 4.0)
    soak = await play(0.25, private_rabbitmq, postgres_database, tmp_path)
    assert [problem for problem in soak.wrong if "times as much" not in problem] == []  # too short to tell growth
    assert soak.runs > 3  # a busy machine
    assert soak.faults
    assert set(soak.samples["memory, MB"]) == {"coordinator", "worker 1", "worker 2"}
    assert all(value > 10 for _, value in soak.samples["memory, MB"]["coordinator"])


@pytest.mark.parametrize(("growth", "wrong"), [(0.0, 0), (0.05, 1)])
def test_what_grows_is_noticed(growth, wrong):
    soak = Soak()
    for step in range(100):
        soak.add("memory, MB", "worker 1", step / 10, 50 * (1 + growth * step / 10))
    soak.judge(10)
    assert len(soak.wrong) == wrong, soak.wrong


def test_a_picture_has_its_lines_and_marks():
    drawn = charts("two", {"memory, MB": {"a<b": [(0, 1), (1, 2)]}, "latency": {"c": []}}, [(0.5, "a fault")])
    root = ET.fromstring(drawn)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in lines] == [2, 0]
    assert "a&lt;b" in drawn
    assert drawn.count("<title>a fault</title>") == 2

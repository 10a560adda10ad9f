"""The samples fit together, and are declared so far that one can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_samples_fit_together() -> None:
    command = [sys.executable, "-m", "flowkit.cli", "check", "--json", "--nodes", str(ROOT / "workers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    edges = {(edge["from"], edge["to"]): edge["verdict"] for edge in told["edges"]}
    assert edges[("expense", "pay")] == "fits"
    assert set(edges) == {
        ("discover", "measure"), ("discover", "summarize"), ("expense", "pay"), ("expense", "escalate"),
        ("import_orders", "store_order"), ("import_orders", "import_report"),
    }  # fmt: skip
    assert not any(node["problems"] for node in told["nodes"])
    assert [node["node"] for node in told["nodes"] if "next" in node["not_declared"]] == ["add"]

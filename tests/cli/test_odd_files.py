"""Node files that do odd things as they are imported, on the command line."""

from __future__ import annotations

LOOPS = """
import asyncio
from flowkit import Node

async def three():
    return 3

THREE = asyncio.run(three())
node = Node()

@node.main
async def main():
    return {following}, {{"three": THREE}}, ""

node.run()
"""
LAZY = """
class Lazy:
    @property
    def __class__(self):
        raise RuntimeError("not now")

lazy = Lazy()
"""


def test_files_that_use_asyncio_at_import_run_as_first_and_as_later_nodes(flowkit, folder):
    (folder / "workers" / "first.py").write_text(LOOPS.format(following=["later"]))
    (folder / "workers" / "later.py").write_text(LOOPS.format(following=[]))
    said = flowkit("run", "first")
    assert (said.code, said.json) == (0, {"three": 3}), said.err


def test_check_says_of_each_odd_file_in_one_line_what_is_wrong_and_goes_on(flowkit, folder):
    workers = folder / "workers"
    (workers / "lazy.py").write_text(LAZY + LOOPS.format(following=["add"]))
    (workers / "mute.py").write_text("class Mute(Exception):\n    __str__ = None\nraise Mute")
    (workers / "needs_loop.py").write_text("import asyncio\nasyncio.get_running_loop()")
    (workers / "stops.py").write_text("raise KeyboardInterrupt")
    said = flowkit("check")
    assert said.code == 1
    wrong = [line for line in said.out.splitlines() if line.startswith("✖")]
    assert [line.partition(", line ")[2] for line in wrong] == [
        "3: Mute: (its str() raised TypeError)",
        "2: RuntimeError: no running event loop; none runs while a file is imported: move this into main",
        "1: KeyboardInterrupt",
    ]
    assert "2 nodes, 0 edges" in said.err
    assert "3 files cannot be loaded" in said.err

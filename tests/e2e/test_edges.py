"""What workers announce on a real broker is what the check and the drawings are made of."""

from __future__ import annotations

import asyncio
import json

from tests.e2e.processes import Shell

NODES = """
from typing import Literal, Never
from pydantic import BaseModel
from flowkit import Gather, Node, Send

class Image(BaseModel):
    url: str

class Resized(BaseModel):
    path: str
    width: int

class Page(BaseModel):
    path: list[str]

resize = Node("resize")
store = Node("store")

@resize.main
async def first(image: Image) -> tuple[list[Literal["store"]], Resized, str]:
    return ["store"], Resized(path="/images/1", width=640), "resized"

@store.main
async def second(page: Page) -> tuple[list[Never], dict, str]:
    return [], {}, "stored"
"""


async def announced(shell: Shell, *words: str) -> tuple[int, str]:
    """What a verb prints, once the nodes have been announced."""
    for _ in range(100):
        code, out, said = await shell.call(*words)
        if "no node" not in said:
            return code, out
        await asyncio.sleep(0.1)
    raise AssertionError(said)


async def test_from_the_worker_to_the_verdict(shell: Shell) -> None:
    (shell.folder / "images.py").write_text(NODES)
    await shell.coordinator()
    await shell.worker("./images.py")
    code, out = await announced(shell, "graph", "resize", "--announced")
    assert (code, "n0 --> n1" in out) == (0, True)
    code, out, _ = await shell.call("check", "--announced", "--json")
    (edge,) = json.loads(out)["edges"]
    assert (code, edge["verdict"], edge["text"]) == (1, "cannot", "path: resize sends string, store takes array")
    # And it is so: what resize returns, a model, travels to store, which refuses it.
    code, out, _ = await shell.call("start", "resize", "-F", "url=x", "--id", "r", "--wait")
    assert (code, out) == (1, "r\n")
    code, out, _ = await shell.call("graph", "--run", "r", "--json")
    assert [(node["name"], node["counts"]) for node in json.loads(out)["nodes"]] == [
        ("r", {"failed": 1}),
        ("resize", {"succeeded": 1}),
        ("store", {"failed": 1}),
    ]
    code, out, _ = await shell.call("runs", "show", "r", "--json")
    assert "path: Input should be a valid array" in json.loads(out)["error"]["message"]

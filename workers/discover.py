"""First step of the code census: find the Python files below a directory, and have each of them measured.

    flowkit run discover
    flowkit run discover -F directory=flowkit -F limit=20

Without a directory it takes the standard library of the Python that runs it, without its site-packages: those are
other people's code, and different on every machine.
"""

import asyncio
import os
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, Field

from flowkit import Gather, Logger, Node, Send

SKIPPED = {"site-packages", "dist-packages", "__pycache__", "node_modules"}
MOST = 10_000  # the sends that one Gather takes

node = Node("discover", next=["measure", "summarize"])
logger = Logger(node)


class Where(BaseModel):
    directory: str | None = None
    limit: int = Field(MOST, ge=1, le=MOST)


class Found(BaseModel):
    directory: str


def python_files(root: Path) -> Iterator[Path]:
    """Every ``.py`` file below ``root`` in a steady order, hidden folders and SKIPPED ones left out."""
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if name not in SKIPPED and not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def find(directory: str | None, limit: int) -> tuple[str, list[str]]:
    """The root that was meant, and the paths of its files as seen from there."""
    root = Path(directory or sysconfig.get_path("stdlib")).resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no directory; give the input 'directory' one that is")
    return str(root), [str(path.relative_to(root)) for path in islice(python_files(root), limit)]


@node.main
async def main(where: Where) -> tuple[list[Gather], Found, str]:
    root, files = await asyncio.to_thread(find, where.directory, where.limit)
    await logger.info(f"{len(files):,} Python files below {root}")
    sends = [Send("measure", {"root": root, "file": file}) for file in files]
    return [Gather(sends, then="summarize")], Found(directory=root), f"found {len(files):,} files"


node.run()

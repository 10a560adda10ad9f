"""Last step of the code census: add up what was measured."""

from typing import Any, Never

from pydantic import BaseModel

from flowkit import Logger, Node

BOUNDS = (10, 100, 1_000, 10_000)  # lines: the upper ends of the groups of files, and one more for the rest

node = Node("summarize")
logger = Logger(node)


class Longest(BaseModel):
    name: str
    line: int
    lines: int


class Measured(BaseModel):
    file: str
    error: str | None = None
    lines: int = 0
    functions: int = 0
    classes: int = 0
    nesting: int = 0
    longest: Longest | None = None


class Census(BaseModel):
    directory: str
    results: list[Measured]


def distribution(lines: list[int]) -> dict[str, int]:
    """How many files have up to 10 lines, up to 100, and so on."""
    counts = dict.fromkeys([f"up to {bound:,}" for bound in BOUNDS] + [f"over {BOUNDS[-1]:,}"], 0)
    for number in lines:
        group = next((f"up to {bound:,}" for bound in BOUNDS if number <= bound), f"over {BOUNDS[-1]:,}")
        counts[group] += 1
    return counts


def summarize(census: Census) -> dict[str, Any]:
    """Totals, the ten longest functions, the deepest file, and how the files spread over sizes."""
    read = [entry for entry in census.results if entry.error is None]
    functions = [(entry.longest.lines, entry.file, entry.longest) for entry in read if entry.longest]
    functions.sort(key=lambda found: (-found[0], found[1]))
    deepest = max(read, key=lambda entry: entry.nesting, default=None)
    return {
        "directory": census.directory,
        "files": len(census.results),
        "unparsed": len(census.results) - len(read),
        "lines": sum(entry.lines for entry in read),
        "functions": sum(entry.functions for entry in read),
        "classes": sum(entry.classes for entry in read),
        "deepest": {"file": deepest.file, "nesting": deepest.nesting} if deepest else None,
        # One candidate a file: a census of files, in which a file full of long functions counts once.
        "longest_functions": [
            {"function": longest.name, "lines": lines, "where": f"{file}:{longest.line}"}
            for lines, file, longest in functions[:10]
        ],
        "files_by_lines": distribution([entry.lines for entry in read]),
    }


@node.main
async def main(census: Census) -> tuple[list[Never], dict[str, Any], str]:
    outputs = summarize(census)
    message = f"{outputs['files']:,} files, {outputs['lines']:,} lines, {outputs['functions']:,} functions"
    if outputs["unparsed"]:
        await logger.warning(f"{outputs['unparsed']:,} files could not be parsed; they are counted as such")
    await logger.info(message)
    return [], outputs, message


node.run()

"""Last step of an import: what was stored, and which lines of the file were not, and why."""

from typing import Any, Never

from pydantic import BaseModel

from flowkit import Logger, Node

node = Node("import_report")
logger = Logger(node)


class Failure(BaseModel):
    type: str
    message: str = ""


class Stored(BaseModel):
    cents: int = 0
    error: Failure | None = None  # in place of the rest, for a row that failed


class Imported(BaseModel):
    file: str
    lines: list[int]
    results: list[Stored]  # in the order of the lines


def report(done: Imported) -> dict[str, Any]:
    """Counts, the total, and every line that was left out."""
    left_out = [
        {"line": line, "why": f"{result.error.type}: {result.error.message}"}
        for line, result in zip(done.lines, done.results, strict=True)
        if result.error is not None
    ]
    return {
        "file": done.file,
        "stored": len(done.results) - len(left_out),
        "total": f"{sum(result.cents for result in done.results) / 100:.2f}",
        "left_out": left_out,
    }


@node.main
async def main(done: Imported) -> tuple[list[Never], dict[str, Any], str]:
    outputs = report(done)
    for row in outputs["left_out"]:
        await logger.warning(f"line {row['line']}: {row['why']}")
    return [], outputs, f"stored {outputs['stored']:,} orders, left out {len(outputs['left_out']):,}"


node.run()

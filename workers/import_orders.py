"""First step of an import: read a CSV file of orders, and have each row stored by a task of its own.

    flowkit run import_orders
    flowkit run import_orders -F file=orders.csv -F database=orders.db

A row that cannot be stored does not stop the others: the report names it. Without a file it takes the sample beside
this one, three orders of which are wrong and one of which is incomplete.
"""

import asyncio
import csv
from pathlib import Path

from pydantic import BaseModel

from flowkit import Gather, Logger, Node, Send

SAMPLE = Path(__file__).with_name("orders.csv")

node = Node("import_orders", next=["store_order", "import_report"])
logger = Logger(node)


class Import(BaseModel):
    file: Path = SAMPLE
    database: Path = Path(".flowkit", "orders.db")


class Read(BaseModel):
    file: Path
    lines: list[int]


def read(file: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a head line, each with the number of its last line.

    A cell too many stands under the name "too many"; one too few is missing.
    """
    with file.open(newline="", encoding="utf-8-sig") as text:
        rows = csv.DictReader(text, restkey="too many")
        return [(rows.line_num, {name: cell for name, cell in row.items() if cell is not None}) for row in rows]


@node.main
async def main(job: Import) -> tuple[list[Gather], Read, str]:
    rows = await asyncio.to_thread(read, job.file)
    await logger.info(f"{len(rows):,} orders in {job.file.name}")
    database = str(job.database.resolve())
    sends = [Send("store_order", {"order": row, "database": database}) for _, row in rows]
    outputs = Read(file=job.file, lines=[line for line, _ in rows])
    gather = Gather(sends, then="import_report", return_exceptions=True, max_concurrency=20)
    return [gather], outputs, f"read {len(rows):,} orders"


node.run()

"""Second step of an import: write one order into the database.

An order that does not fit `Order` fails at once, with the reason. A database in which somebody else is writing is
tried again a little later: the pause is a row in FlowKit's store, and occupies no worker.
"""

import asyncio
import sqlite3
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Never

from pydantic import BaseModel, ConfigDict, Field
from tenacity import retry_if_exception_type, stop_after_attempt, wait_random_exponential

from flowkit import Node

node = Node(
    "store_order",
    timeout=30,
    retry=retry_if_exception_type(sqlite3.OperationalError),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(0.2, max=60),
)


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: str = Field(pattern=r"^[A-Z]-\d+$")
    date: date
    customer: str = Field(min_length=1)
    article: str = Field(min_length=1)
    quantity: int = Field(ge=1)
    price: Decimal = Field(ge=0, decimal_places=2)


class Stored(BaseModel):
    number: str
    cents: int


class Job(BaseModel):
    order: Order
    database: Path


def store(order: Order, database: Path) -> None:
    """Write it; once more writes the same row again, for a task may run twice."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database, timeout=0.1)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (number PRIMARY KEY, date, customer, article, cents)")
        row = (order.number, order.date.isoformat(), order.customer, order.article, cents(order))
        connection.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?)", row)


def cents(order: Order) -> int:
    """What it costs."""
    return int(order.quantity * order.price * 100)


@node.main
async def main(job: Job) -> tuple[list[Never], Stored, str]:
    await asyncio.to_thread(store, job.order, job.database)
    return [], Stored(number=job.order.number, cents=cents(job.order)), f"stored {job.order.number}"


node.run()

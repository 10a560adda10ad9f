"""The pure parts of the import of orders; the whole of it runs in the end-to-end tests."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from flowkit import loading

WORKERS = Path(__file__).parents[2] / "workers"
ORDER = {"number": "A-1", "date": "2026-03-02", "customer": "x", "article": "y", "quantity": "3", "price": "0.10"}


def module_of(node: str) -> ModuleType:
    (definition,) = loading.load(node, WORKERS)
    return sys.modules[definition.main.__module__]


def test_rows_are_read_as_spreadsheets_write_them(tmp_path):
    file = tmp_path / "orders.csv"
    file.write_bytes('\ufeffnumber,customer\r\nA-1,"Müller\nAnna"\r\nA-2\r\nA-3,x,y,z\r\n'.encode())
    assert module_of("import_orders").read(file) == [
        (3, {"number": "A-1", "customer": "Müller\nAnna"}),
        (4, {"number": "A-2"}),
        (5, {"number": "A-3", "customer": "x", "too many": ["y", "z"]}),
    ]


def test_a_file_with_a_head_and_nothing_else(tmp_path):
    (tmp_path / "orders.csv").write_text("number,customer\n")
    assert module_of("import_orders").read(tmp_path / "orders.csv") == []
    report = module_of("import_report")
    told = report.report(report.Imported(file="orders.csv", lines=[], results=[]))
    assert told == {"file": "orders.csv", "stored": 0, "total": "0.00", "left_out": []}


def test_an_order_is_stored_once_however_often_its_task_runs(tmp_path):
    module = module_of("store_order")
    order, database = module.Order.model_validate(ORDER), tmp_path / "new" / "orders.db"
    for _ in range(3):
        module.store(order, database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT * FROM orders").fetchall() == [("A-1", "2026-03-02", "x", "y", 30)]


@pytest.mark.parametrize(
    "wrong",
    [{"number": "1"}, {"date": "2026-02-30"}, {"customer": ""}, {"quantity": "0"}, {"price": "0.105"}, {"more": "1"}],
)
def test_a_wrong_order_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        module_of("store_order").Order.model_validate(ORDER | wrong)


def test_a_database_that_is_locked_is_said_to_be_so_at_once(tmp_path):
    module = module_of("store_order")
    with closing(sqlite3.connect(tmp_path / "orders.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            module.store(module.Order.model_validate(ORDER), tmp_path / "orders.db")

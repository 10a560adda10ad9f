"""``flowkit`` with a store that is full while a file says so: ``PRAGMA max_page_count`` holds for one connection.

Arguments: those of ``flowkit``. The file ``CHAOS_PAGES`` has the number of pages that the store may have.
"""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.cli.app import main
from flowkit.store.sqlite import SQLite

begin = SQLite.begin


def begin_in_little_room(database: SQLite) -> None:
    pages = Path(os.environ["CHAOS_PAGES"]).read_text()
    database.connection.execute(f"PRAGMA max_page_count = {int(pages)}")
    begin(database)


SQLite.begin = begin_in_little_room  # type: ignore[method-assign]
main()

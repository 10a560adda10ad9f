"""What a verb that only looks does not wait for."""

from __future__ import annotations

import subprocess
import sys

from flowkit.store import open_store


async def test_reading_a_store_imports_nothing_that_only_writers_need(tmp_path) -> None:
    """SQLAlchemy, the core's changes, the models of messages: each takes longer to import than the answer takes."""
    await (await open_store(f"sqlite:///{tmp_path}/flowkit.db")).close()
    script = f"""
import asyncio, sys
from flowkit.store import open_store

from flowkit import settings

async def main():
    settings.read()
    import flowkit.flow.explain
    store = await open_store("sqlite:///{tmp_path}/flowkit.db", upgrade=False)
    await store.query(lambda query: (query.runs(limit=20), query.tasks("r"), query.workers(seen_since=0)))
    await store.close()

asyncio.run(main())
heavy = {{"flowkit.flow.changes", "flowkit.flow.events", "flowkit.wire.messages", "flowkit.store.transaction"}}
print([name for name in sys.modules if name in heavy or name.partition(".")[0] in ("sqlalchemy", "alembic")])
"""
    said = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert said.stdout == "[]\n"

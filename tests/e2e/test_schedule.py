"""A schedule with real processes: its runs begin once, whatever happens to the coordinator."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from flowkit.flow.schedules import Missed
from flowkit.store import open_store


async def test_a_tick_begins_one_run_though_its_coordinator_is_killed(shell):
    first = await shell.coordinator()
    code, _, said = await shell.call(
        "schedule", "add", "sums", "--cron", "0 3 * * *", "--node", "add", "-i", '{"a": 1, "b": 2}'
    )
    assert code == 0, said
    await first.kill()
    # As if it were three o'clock: nobody waits for a clock here.
    planned = time.time() // 1
    store = await open_store(f"sqlite:///{shell.folder}/flowkit.db")

    def due(transaction) -> None:
        schedule = transaction.schedule("sums")
        transaction.put_schedule(replace(schedule, next_at=planned, look_at=planned, missed=Missed.ONCE))

    await store.transact(due)
    await store.close()
    second = await shell.coordinator()
    await second.says("schedule sums begins run sums-")
    await second.kill()
    await shell.coordinator()
    await shell.worker("add")
    run_id = f"sums-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(planned))}"
    code, out, said = await shell.call("start", "add", "--id", run_id, "-i", '{"a": 1, "b": 2}', "--wait")
    assert (code, json.loads(out.partition("\n")[2])) == (0, {"result": 3}), said
    code, out, _ = await shell.call("runs", "list", "--json")
    assert [(run["id"], run["origin"]) for run in json.loads(out)["runs"]] == [(run_id, "schedule")]
    code, out, said = await shell.call("schedule", "list")
    assert (code, said) == (0, "")
    assert f"{run_id}  succeeded" in out
    code, out, _ = await shell.call("runs", "show", run_id)
    assert "schedule sums" in out

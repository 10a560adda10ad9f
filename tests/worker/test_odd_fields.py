"""Each field of the messages that a worker hears with odd values: it goes on."""

from __future__ import annotations

from uuid import uuid4

from flowkit.wire.messages import Control, Task
from tests.wire.odd import Sample, encode

from .tasks import define, task


async def test_whatever_stands_in_a_field_of_a_task_or_a_control_the_worker_goes_on(house, caplog):
    async def main():
        return [], {}, "done"

    async with house.worker(define(main)):
        controls = [encode(one.message) for one in Sample(Control).odd()]
        await house.raw("control", *[("", body, Control.TYPE) for body in controls])
        tasks = [
            one.message | {"node": "work"} | ({} if one.place == ("task_id",) else {"task_id": str(uuid4())})
            for one in Sample(Task).odd()
        ]
        await house.raw("tasks", *[("work", encode(one), Task.TYPE) for one in tasks])
        last = task()
        await house.send(last)
        while (await house.result()).task_id != last.task_id:
            pass
    assert not [record for record in caplog.records if record.exc_info]

"""The name of a worker: made up, or given and then guarded against a second worker that has it too."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
from datetime import UTC, datetime

from flowkit.broker.protocol import Broker, Consumer
from flowkit.errors import AccessRefused, NameInUse, Unreadable
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

_log = logging.getLogger(__name__)


def host_name() -> str:
    """The name of this machine, without its domain."""
    return socket.gethostname().partition(".")[0][:100]


def worker_name() -> str:
    """A name for this process: ``<host>-<pid>-<4 hex digits>``."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", host_name())[:40].lstrip("_-") or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"


class NameGuard:
    """Sees that no other worker has this one's name. Who has the exclusive control queue of a name has the name.

    A worker that died without a word (its machine lost power, or the network) keeps its queue until the broker misses
    its heartbeats. So another one that is heard to announce itself under the name ends this one at once, and a queue
    that is only held is waited for.

    Args:
        broker: where announcements are heard, if permissions allow it.
        topology: the names there.
        control: the consumer of this worker's control queue.
        name: of this worker.
        patience: seconds to wait for a queue that somebody else holds.
    """

    def __init__(self, broker: Broker, topology: Topology, control: Consumer, *, name: str, patience: float) -> None:
        self._broker, self._topology, self._control = broker, topology, control
        self._name, self._patience = name, patience

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            NameInUse: another worker has the name.
        """
        while True:
            await self._control.wait_locked()
            await self._settle()

    async def _settle(self) -> None:
        _log.warning(
            "worker name %s: another connection holds its queue; waiting up to %g s for it to end, "
            "in case it is that of a process that died", self._name, self._patience, extra={"action": "name_in_use"},
        )  # fmt: skip
        free = asyncio.create_task(self._control.wait_connected())
        hearing = asyncio.create_task(self._hear())
        try:
            await asyncio.wait((free, hearing), timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
            if free.done():
                free.result()
                return
            where = _where(hearing.result()) if hearing.done() else None
        finally:
            free.cancel()
            hearing.cancel()
            await asyncio.wait((free, hearing))
        raise NameInUse(self._name, where, self._patience)

    async def _hear(self) -> wire.Worker:
        """The announcement of another living worker of this name; without end where there is none to hear."""
        consumer = self._broker.consume(self._topology.announcements(secrets.token_hex(8), self._name), prefetch=100)
        try:
            while deliveries := await consumer.receive(100):
                await consumer.ack(deliveries)
                for delivery in deliveries:
                    try:
                        told = wire.decode(wire.Worker, delivery.body)
                    except Unreadable:
                        continue
                    if told.worker == self._name and not told.stopping and (told.host, told.pid) != _here():
                        return told
        except AccessRefused:
            pass  # the least rights of a worker do not include the announcements of others
        finally:
            await consumer.close()
        await asyncio.Event().wait()
        raise AssertionError("it waits without end")


def _here() -> tuple[str, int]:
    return host_name(), os.getpid()


def _where(holder: wire.Worker) -> str:
    since = "" if holder.started_at is None else f", since {datetime.fromtimestamp(holder.started_at, UTC):%F %T} UTC"
    return f" (process {holder.pid} on {holder.host}{since})" if holder.pid is not None else ""

"""How a worker or a coordinator lives as a process: signals, first connect, a sign of life, its own log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from flowkit.cli.services.heartbeat_file import Pulse
from flowkit.cli.services.own_log import configure
from flowkit.worker import event_loop
from flowkit.worker.signals import leave_to_parent

if TYPE_CHECKING:
    from flowkit.broker import Broker
    from flowkit.cli.services.control_pipe import Lifeline
    from flowkit.settings import Settings
    from flowkit.worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

HEARD = (signal.SIGTERM, signal.SIGINT)
FIRST_CONNECT = 60  # seconds: a broker that starts together with this process is no error


def serve(
    settings: Settings,
    work: Callable[[Signals], Coroutine[Any, Any, int]],
    *,
    lifeline: Lifeline | None = None,
    worker: str | None = None,
    watched: contextlib.AbstractContextManager[Watchdog | None] | None = None,
    asked: Callable[[bool], object] = lambda _: None,
) -> int:
    """Run a service in an event loop until it ends by itself, by signals or by its parent; returns the exit code.

    Args:
        settings: of which the log's are used here.
        work: the service.
        lifeline: to the parent, of one process among several.
        worker: name for each line of the log, of one process among several.
        watched: starts what kills this process when it does not read a signal.
        asked: called when the service is asked to finish, with False, or to stop now, with True.
    """
    configure(settings.log_level, settings.log_format, worker)
    leave_to_parent(*HEARD)
    with watched or contextlib.nullcontext() as watchdog:
        try:
            return event_loop.run(_with_signals(work, Signals(asked), lifeline, watchdog), loop_factory())
        finally:
            for number in HEARD:  # one more changes nothing: the end of the process is bounded
                signal.signal(number, signal.SIG_IGN)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:  # an extra
        return None
    return new_event_loop


async def _with_signals(
    work: Callable[[Signals], Coroutine[Any, Any, int]],
    signals: Signals,
    lifeline: Lifeline | None,
    watchdog: Watchdog | None,
) -> int:
    loop = asyncio.get_running_loop()
    for number in HEARD:
        _add_handler(loop, number, signals.received)
    if watchdog is not None:
        watchdog.read_signals(loop, signals.received)
    if lifeline is not None:
        lifeline.listen(signals)
    return await work(signals)


def _add_handler(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, received: Callable[[signal.Signals], None]
) -> None:
    try:
        loop.add_signal_handler(number, received, number)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(received, number))


class Signals:
    """SIGTERM and SIGINT: the first one asks to finish, the second one to stop now. A parent asks for either.

    Args:
        asked: called at once, before anything else is done about it: with False when the service is asked to finish,
            with True when it is asked to stop now.
    """

    def __init__(self, asked: Callable[[bool], object] = lambda _: None) -> None:
        self._asked = asked
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self._heard = False

    def received(self, number: signal.Signals) -> None:
        """Note one. What the parent said is no first one: both may come of the same Ctrl-C."""
        if self._heard:
            self.force(f"{number.name} again")
        else:
            self._heard = True
            self.drain(number.name)

    def drain(self, why: str) -> None:
        """Ask to finish."""
        if not self.first.is_set():
            self._asked(False)
            logger.info("%s: finishing what has started; once more stops now", why, extra={"action": "drain"})
            self.first.set()

    def force(self, why: str) -> None:
        """Ask to stop now."""
        if not self.second.is_set():
            self._asked(True)
            logger.warning("%s: stopping now", why, extra={"action": "force"})
            self.first.set()
            self.second.set()

    def orphaned(self) -> None:
        """Ask to finish because the parent is gone; a signal can only be the second one then."""
        self._heard = True
        self.drain("the parent is gone")


async def until_stopped(
    service: Coroutine[Any, Any, object],
    signals: Signals,
    *,
    drain: Callable[[], Awaitable[bool]],
    force: Callable[[], object] | None = None,
) -> int:
    """Run a service; drain it at the first signal and force it at the second.

    Args:
        service: its ``run``.
        signals: of this process.
        drain: ends it in good order; answers whether started work had to be abandoned.
        force: ends it now; without it the service is cancelled.

    Returns:
        the exit code: 0, or 1 when work was abandoned or the service ended unasked.
    """
    running = asyncio.create_task(service)
    asked = asyncio.create_task(signals.first.wait())
    finishing: asyncio.Task[bool] | None = None
    again = asyncio.create_task(signals.second.wait())

    async def finish() -> bool:
        abandoned = await drain()
        await asyncio.wait((running,))
        return abandoned

    try:
        await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # nobody asked: it says why, or has ended for good
            return 1
        finishing = asyncio.create_task(finish())
        await asyncio.wait((finishing, again), return_when=asyncio.FIRST_COMPLETED)
        if not finishing.done():
            (force or running.cancel)()
        abandoned = await finishing
        if running.cancelled():
            return 1
        running.result()
        return 1 if abandoned else 0
    finally:
        tasks = [task for task in (running, asked, again, finishing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def connected(settings: Settings, signals: Signals) -> AsyncIterator[Broker | None]:
    """The broker, connected; None when a signal came first.

    Raises:
        BrokerUnreachable: it did not answer for a minute, or refuses the login.
    """
    from flowkit.broker import open_broker

    broker = open_broker(settings.broker_url, heartbeat=settings.heartbeat)
    try:
        logger.info("connecting to %s", broker.url, extra={"action": "connecting"})
        connecting = asyncio.create_task(broker.connect(FIRST_CONNECT))
        asked = asyncio.create_task(signals.first.wait())
        try:
            await asyncio.wait((connecting, asked), return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
        finally:
            asked.cancel()
            connecting.cancel()
        yield None if signals.first.is_set() else broker
    finally:
        await broker.close()


@contextlib.asynccontextmanager
async def alive(
    kind: str, name: str, ready: Callable[[], bool], broker: Broker, *beside: Coroutine[Any, Any, object]
) -> AsyncIterator[None]:
    """Show signs of life to ``flowkit health`` while the block runs, and run what is given beside it."""
    pulse = Pulse(kind, name, ready, lambda: broker.blocked_reason)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one) for one in (pulse.run(), *beside)]
        try:
            yield
        finally:
            for one in running:
                one.cancel()

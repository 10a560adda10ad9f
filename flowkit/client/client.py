"""``Client``: begin runs on a broker."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from pydantic import ValidationError

from flowkit.broker import Broker, Outgoing, open_broker
from flowkit.client.ids import new_run_id
from flowkit.client.publishing import RequestPublisher
from flowkit.client.run import Run
from flowkit.client.run_end_listener import PendingRun, RunEndListener
from flowkit.client.session import UNOPENED, Session
from flowkit.errors import UsageError
from flowkit.wire import codec, names
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

if TYPE_CHECKING:
    from flowkit.client.sync import SyncClient


class Client:
    """Begins runs, waits for them, signals and cancels them.

    It belongs to the event loop and the process that opened it; after its block only known outputs can be read.

    ::

        async with Client("amqp://localhost/") as client:
            run = await client.start("add", {"a": 1, "b": 2})
            print(await run.outputs(timeout=30))

    Args:
        url: address of the broker.
        namespace: prefix of exchanges and queues.
        broker: a connected broker to use instead of an address; it is not closed with the client.
        listen: receive the ends of runs. Without it nothing can be waited for, and fewer permissions are needed.
        patience: seconds to wait for the broker, and for somebody to declare what may not be declared here.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "flowkit",
        broker: Broker | None = None,
        listen: bool = True,
        patience: float = 10,
    ) -> None:
        if (url is None) == (broker is None):
            raise UsageError("Client takes an address or a broker: Client('amqp://user@host/') or Client(broker=…)")
        self._url, self._given = url, broker
        self._topology = Topology(namespace)
        self._listen, self._patience = listen, patience
        self._broker: Broker | None = broker
        self._listener: RunEndListener | None = None
        self._session: Session | None = None
        self._requests: RequestPublisher | None = None

    @classmethod
    def sync(cls, url: str, *, namespace: str = "flowkit", listen: bool = True, patience: float = 10) -> SyncClient:
        """The same for code that is not async: ``with Client.sync(url) as client: …``."""
        from flowkit.client.sync import SyncClient

        return SyncClient(lambda: cls(url, namespace=namespace, listen=listen, patience=patience))

    async def __aenter__(self) -> Self:
        if self._session is not None and not (self._session.closed or self._session.abandoned):
            raise UsageError("this client is open already: use it, or make another one")
        self._listener = None
        if self._given is None:
            assert self._url is not None
            self._broker = open_broker(self._url)
            try:
                await self._broker.connect(self._patience)
            except BaseException:
                await self._broker.close()
                raise
        assert self._broker is not None
        session = Session()
        self._requests = RequestPublisher(
            self._broker, self._topology, patience=self._patience, check_open=session.check_open
        )
        if self._listen:
            self._listener = RunEndListener(self._broker, self._topology, self._resend)
        self._session = session
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session = self._session
        if session is None or session.closed:
            return
        if session.abandoned:
            # Its connections are the parent's, or ended with their loop: nothing of it is to be closed here.
            session.closed = True
            return
        session.check()
        session.closed = True
        try:
            if self._listener is not None:
                await self._listener.close()
        finally:
            if self._given is None and self._broker is not None:
                await self._broker.close()

    def __del__(self) -> None:
        session = getattr(self, "_session", None)  # __init__ may have raised
        if session is not None and not (session.closed or session.abandoned):
            warnings.warn("a Client was not closed: use 'async with'", ResourceWarning, stacklevel=2, source=self)

    async def start(
        self,
        node: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the word of the command line
        tags: Mapping[str, str] | None = None,
        delay: float = 0,
        deadline: float | None = None,
    ) -> Run:
        """Begin a run.

        Args:
            node: name of its first node.
            inputs: a JSON object.
            id: the run's id. The same id with the same node and inputs is the same run, however often it is started.
            tags: words to find it by.
            delay: seconds before its first task is sent.
            deadline: seconds after which it fails when it has not ended.

        Raises:
            UsageError: a name, the inputs or a number cannot be; the message says which.
            TimedOut: nobody declared the queue for starts within ``patience``.
            Refused: the broker does not allow it, or the queue was full for ``patience`` seconds.
        """
        start = start_message(node, inputs, run_id=id, tags=tags, delay=delay, deadline=deadline)
        return (await self._publish_starts([start]))[0]

    async def start_many(
        self, node: str, inputs: Iterable[Mapping[str, Any]], *, tags: Mapping[str, str] | None = None
    ) -> list[Run]:
        """Begin one run for each of ``inputs``, published together.

        Raises:
            UsageError, TimedOut, Refused: as ``start``; some of the runs may have begun.
        """
        return await self._publish_starts([start_message(node, each, tags=tags) for each in inputs])

    def run(self, run_id: str) -> Run:
        """A run that somebody else began: to be signalled, paused or cancelled, not to be waited for."""
        if not names.is_run(run_id):
            raise UsageError(f"run id {run_id!r}: expected {names.RUN}")
        self._open_session.check_open()
        return self._run(run_id, None)

    async def attach(self, request: wire.Start | wire.Command) -> Run:
        """Send a start or a rerun once more, and return the run that it began: the same one begins nothing new.

        Args:
            request: what another client published, ``Run.request``; with the run's id.

        Raises:
            TimedOut, Refused: as ``start``.
        """
        return (
            await self._rerun(request)
            if isinstance(request, wire.Command)
            else (await self._publish_starts([request]))[0]
        )

    async def command(self, commands: Iterable[wire.Command]) -> None:
        """Publish commands, all together; a coordinator applies each of them once, by its id.

        Raises:
            TimedOut: nobody declared the queue for commands within ``patience``.
            Refused: the broker does not allow it, or the queue was full for ``patience`` seconds.
        """
        self._open_session.check()
        await self._publisher.publish_within_patience("commands", self._command_messages(commands))

    async def replay(self, letters: Iterable[int]) -> None:
        """Ask a coordinator to publish dead letters again to the queues they came from.

        Args:
            letters: their numbers, as ``flowkit dead list`` shows them. What cannot be replayed becomes a dead letter
                of its own, with the reason.

        Raises:
            UsageError: a number cannot be one.
            TimedOut, Refused: as ``command``.
        """
        try:
            command = wire.Command(id=uuid4(), kind=wire.CommandKind.REPLAY, letters=tuple(letters))
        except ValidationError as error:
            raise UsageError(f"cannot replay these dead letters: {wire.explain(error)}") from None
        await self.command([command])

    async def _publish_starts(self, starts: Sequence[wire.Start]) -> list[Run]:
        self._open_session.check()
        pending = await self._register(starts)
        await self._publisher.publish_within_patience("starts", self._start_messages(starts))
        return [self._run(start.run_id, end) for start, end in zip(starts, pending, strict=True)]

    async def _rerun(self, command: wire.Command) -> Run:
        self._open_session.check()
        (pending,) = await self._register([command])
        await self.command([command])
        return self._run(command.new_run_id, pending)

    async def _register(self, requests: Sequence[wire.Start | wire.Command]) -> list[PendingRun] | list[None]:
        """Register the runs that these requests begin, if this client listens."""
        if self._listener is None:
            return [None] * len(requests)
        await self._publisher.within_patience("runs", self._open_listener(self._listener))
        return [self._listener.register(request) for request in requests]

    def _run(self, run_id: str | None, pending: PendingRun | None) -> Run:
        return Run(run_id or "", pending, self._open_session, self._command, self._rerun)

    async def _open_listener(self, listener: RunEndListener) -> None:
        await self._publisher.declare("runs")
        await listener.open()

    async def _resend(self, requests: Sequence[wire.Start | wire.Command]) -> None:
        """Publish requests again after a reconnect, to queues that may have to be declared again."""
        self._publisher.declare_again()
        await self._publisher.publish(
            "starts", self._start_messages([each for each in requests if isinstance(each, wire.Start)])
        )
        if reruns := [each for each in requests if isinstance(each, wire.Command)]:
            await self._publisher.publish("commands", self._command_messages(reruns))

    def _start_messages(self, starts: Sequence[wire.Start]) -> list[Outgoing]:
        exchange = self._topology.name("starts")
        return [
            Outgoing(exchange, start.node, start.encode(), start.TYPE, correlation_id=start.run_id, app_id=start.node)
            for start in starts
        ]

    def _command_messages(self, commands: Iterable[wire.Command]) -> list[Outgoing]:
        exchange = self._topology.name("commands")
        return [
            Outgoing(exchange, each.kind, each.encode(), each.TYPE, correlation_id=each.run_id) for each in commands
        ]

    async def _command(self, command: wire.Command) -> None:
        await self.command([command])

    @property
    def _publisher(self) -> RequestPublisher:
        assert self._requests is not None, "it was opened"
        return self._requests

    @property
    def _open_session(self) -> Session:
        if self._session is None:
            raise UsageError(UNOPENED)
        return self._session


def start_message(
    node: str,
    inputs: Mapping[str, Any] | None,
    *,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    delay: float = 0,
    deadline: float | None = None,
) -> wire.Start:
    """The message that begins a run; see ``Client.start``.

    Raises:
        UsageError: a name, the inputs or a number cannot be; the message says which.
    """
    if not names.is_node(node):
        raise UsageError(f"node {node!r}: a name is a letter, then up to 62 letters, digits, '_' or '-'")
    if run_id is not None and not names.is_run(run_id):  # an empty one too: a new id each time would begin a new run
        raise UsageError(
            f"run id {run_id[:120]!r}: expected a letter or digit, then up to 99 letters, digits, '.', '_', ':' or '-'"
        )
    own = codec.frozen(dict(inputs or {}), "inputs")  # it is sent again, and compared with what the coordinator says
    values: dict[str, Any] = {"node": node, "inputs": own, "run_id": run_id or new_run_id()}
    if tags:
        values["tags"] = dict(tags)
    if delay:
        values["delay"] = delay
    if deadline is not None:
        values["deadline"] = deadline
    try:
        return wire.Start(**values)
    except ValidationError as error:
        raise UsageError(f"this run cannot be started: {wire.explain(error)}") from None

"""A private RabbitMQ for the tests: its own ports, cookie, data and port mapper, on loopback, ended by process id.

By hand: ``python -m tests.services.rabbitmq`` starts one, prints its address, and stops it at Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.services import packages

BIN = Path("/usr/lib/rabbitmq/bin")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends rabbitmq-server"
IMAGE = "rabbitmq:4"
# Reads "begin PID" and "end PID", and when nothing can come any more, since the tests have ended in whatever way
# (kill -9 too), ends the process groups that are left.
KEEPER = """
import os, shutil, signal, sys
left = set()
for line in sys.stdin:
    word, group = line.split()
    (left.add if word == "begin" else left.discard)(int(group))
for group in left:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
if left:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class RabbitMQ:
    """One broker of the tests' own, which may be stopped, killed, wiped and started again on the same port.

    ``config``: further lines of its rabbitmq.conf.
    """

    def __init__(self, config: str = "") -> None:
        self.port, self._dist_port, self._epmd_port = free_ports(3)
        self.node = f"fk{self.port}@localhost"
        self._home = Path(tempfile.mkdtemp(prefix="flowkit-rabbitmq-"))
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[str] | None = None
        (self._home / "plugins").write_text("[].\n")
        (self._home / "rabbitmq.conf").write_text(f"loopback_users = none\nlog.file.level = warning\n{config}\n")

    @property
    def url(self) -> str:
        """Its address, with the default user."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self, timeout: float = 60) -> None:
        """Start it and wait until it takes connections; ``timeout`` in seconds."""
        if self._keeper is None:
            self._keeper = subprocess.Popen(
                [sys.executable, "-c", KEEPER, str(self._home)],
                stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
            )  # fmt: skip
        if self._epmd is None:
            self._epmd = self._run(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        # Debian's wrapper in /usr/sbin changes the user; the script itself runs as whoever calls it.
        self._server = self._run([str(BIN / "rabbitmq-server")])
        deadline = time.monotonic() + timeout
        while not speaks_amqp(self.port):
            if self._server.poll() is not None or time.monotonic() > deadline:
                output = (self._home / "output").read_text(errors="replace")
                raise RuntimeError(f"the private RabbitMQ did not start:\n{output[-3000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it in good order; its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (kill -9); its data stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Delete all its data; it must be stopped."""
        assert self._server is None, "stop or kill it first"
        shutil.rmtree(self._home / "mnesia", ignore_errors=True)

    def ctl(self, *args: str, timeout: float = 60) -> str:
        """Run ``rabbitmqctl`` with these arguments and return what it prints."""
        command = [str(BIN / "rabbitmqctl"), "--quiet", "-n", self.node, *args]
        done = subprocess.run(
            command, check=False, env=self._environment(), capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def close_connections(self) -> None:
        """Close every connection from the broker's side."""
        self.ctl("close_all_connections", "test")

    def close(self) -> None:
        """End everything that was started, and remove the data."""
        try:
            self._end(signal.SIGTERM)
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait()
                self._keep("end", self._epmd)
                self._epmd = None
            if self._keeper is not None:
                self._keeper.communicate()
                self._keeper = None
            shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._home / "output").open("ab") as output:
            started = subprocess.Popen(
                command, env=self._environment(), stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                cwd=self._home, start_new_session=True,
            )  # fmt: skip
        self._keep("begin", started)
        return started

    def _keep(self, word: str, process: subprocess.Popen[bytes]) -> None:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{word} {process.pid}\n")

    def _end(self, how: signal.Signals) -> None:
        """Signal the session of the server: the shell that started it, the emulator and its port programs."""
        server, self._server = self._server, None
        if server is None:
            return
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(server.pid, how)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(10)
        self._keep("end", server)

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        return {
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": home,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def speaks_amqp(port: int) -> bool:
    """Whether an AMQP broker answers on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return len(connection.recv(8)) > 0
    except OSError:
        return False


def install() -> bool:
    """Install RabbitMQ where that is possible; whether it is there."""
    return packages.install("rabbitmq-server", (BIN / "rabbitmq-server").exists)


def engine_answers() -> bool:
    """Whether a container engine answers, not only its client."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        done = subprocess.run(
            [docker, "version", "--format", "{{.Server.Version}}"], capture_output=True, check=False, timeout=15
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def prepare() -> None:
    """Install what ``rabbitmq_url`` will start, where that is needed and possible."""
    if not os.environ.get("FLOWKIT_TEST_AMQP_URL"):
        install()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """The address of a RabbitMQ for the whole test run."""
    given = os.environ.get("FLOWKIT_TEST_AMQP_URL")
    if given:
        yield given
    elif install():
        broker = RabbitMQ()
        try:
            broker.start()
            yield broker.url
        finally:
            broker.close()
    elif engine_answers():
        from testcontainers.rabbitmq import RabbitMqContainer

        with RabbitMqContainer(IMAGE) as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(5672)
            yield f"amqp://guest:guest@{host}:{port}/"
    else:
        pytest.exit(f"the tests need RabbitMQ: run '{INSTALL}', or set FLOWKIT_TEST_AMQP_URL", returncode=1)


@pytest.fixture(scope="session")
def private_rabbitmq_server() -> Iterator[RabbitMQ]:
    """A second broker, for the tests that stop, kill or wipe it: they may not share the first."""
    if not install():
        pytest.exit(f"tests that restart a broker need RabbitMQ's own binaries: run '{INSTALL}'", returncode=1)
    broker = RabbitMQ()
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture
def private_rabbitmq(private_rabbitmq_server: RabbitMQ) -> RabbitMQ:
    """The second broker, running; a test that leaves it stopped does no harm to the next."""
    if not speaks_amqp(private_rabbitmq_server.port):
        private_rabbitmq_server.kill()
        private_rabbitmq_server.start()
    return private_rabbitmq_server


@pytest.fixture
def namespace() -> str:
    """A namespace of this test's own."""
    return f"t{uuid.uuid4().hex[:8]}"


def main(wait: Callable[[], object] = signal.pause) -> None:
    """Start a broker, print its address, stop it at Ctrl-C."""
    if not install():
        sys.exit(f"RabbitMQ is not installed here: run '{INSTALL}'")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    broker = RabbitMQ()
    try:
        broker.start()
        print(broker.url, flush=True)
        wait()
    except KeyboardInterrupt:
        pass
    finally:
        broker.close()


if __name__ == "__main__":
    main()

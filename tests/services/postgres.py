"""A real PostgreSQL for the tests.

``FLOWKIT_TEST_POSTGRES_URL``, else a private cluster from the binaries on this machine (installed with apt-get where
that is possible), else a container. What is missing fails the test run, with the command that installs it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import urlsplit

import psycopg
import pytest

from flowkit.store import schema
from flowkit.store.postgres import PostgreSQL
from tests.services import packages

MISSING = (
    "The tests need PostgreSQL. Install it (apt-get install postgresql), or start a container engine, "
    "or name a server in FLOWKIT_TEST_POSTGRES_URL (its user must be allowed to create databases)."
)
# A cluster for tests outlives nothing: no fsync. Only loopback, no sockets in shared folders.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "50",
    "deadlock_timeout": "100ms",
}


def prepare() -> None:
    """Install what ``postgres_url`` will start, where that is needed and possible."""
    if not os.environ.get("FLOWKIT_TEST_POSTGRES_URL"):
        _installed_binaries()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a server where the tests may create databases."""
    with server() as url:
        yield url


@contextmanager
def server(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """A server where databases may be created; benchmarks use it too, with ``settings`` of their own."""
    given = os.environ.get("FLOWKIT_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with ExitStack() as stack:
        binaries = _installed_binaries()
        yield stack.enter_context(Cluster(binaries, settings)).url if binaries else _container(stack)


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """The name of a database with the newest tables, to be copied."""
    name = f"flowkit_template_{uuid.uuid4().hex[:8]}"
    _command(postgres_url, f"CREATE DATABASE {name}")
    database = PostgreSQL(with_database(postgres_url, name))
    schema.prepare(database, upgrade=True)
    database.close()
    yield name
    _command(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_database(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """The address of a fresh database with the newest tables and nothing in them but its own id and secret."""
    yield from _database(postgres_url, f"TEMPLATE {postgres_template}")


@pytest.fixture
def empty_postgres_database(postgres_url: str) -> Iterator[str]:
    """The address of a fresh database without tables."""
    yield from _database(postgres_url, "")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of one's own, for tests that stop it; what it has confirmed outlives that."""
    binaries = _installed_binaries()
    if binaries is None:
        pytest.fail("tests that restart PostgreSQL need its own binaries: apt-get install postgresql", pytrace=False)
    with Cluster(binaries, {"synchronous_commit": "on"}) as started:
        yield started


def with_database(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextmanager
def database(url: str) -> Iterator[str]:
    """A fresh database without tables on this server."""
    yield from _database(url, "")


def _database(url: str, how: str) -> Iterator[str]:
    name = f"flowkit_{uuid.uuid4().hex[:12]}"
    _command(url, f"CREATE DATABASE {name} {how}")
    yield with_database(url, name)
    _command(url, f"DROP DATABASE {name} WITH (FORCE)")


def _command(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _binaries() -> Path | None:
    """The newest installed version's folder."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _installed_binaries() -> Path | None:
    packages.install("postgresql", lambda: _binaries() is not None)
    return _binaries()


def _container(stack: ExitStack) -> str:
    from docker.errors import DockerException
    from testcontainers.postgres import PostgresContainer

    try:
        container = stack.enter_context(PostgresContainer("postgres:17-alpine", driver=None))
    except DockerException:
        pytest.fail(MISSING, pytrace=False)
    return container.get_connection_url()


class Cluster:
    """A private cluster on a free port of the loopback, which may be stopped and started again; gone at the end.

    ``settings``: those that differ from ``SETTINGS``; with ``synchronous_commit`` what it has confirmed outlives a
    crash of its own.
    """

    USER, PASSWORD = "flowkit", "s3cret-canary"

    def __init__(self, binaries: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._binaries = binaries
        self._settings = SETTINGS | dict(settings)
        self._folder = Path(tempfile.mkdtemp(prefix="flowkit-postgres-"))
        # PostgreSQL refuses to run as root.
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql://{self.USER}:{self.PASSWORD}@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> Self:
        password = self._folder / "password"
        password.write_text(self.PASSWORD)
        if self._as:
            owner = pwd.getpwnam("postgres")
            for path in (self._folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb", "--auth=scram-sha-256", f"--username={self.USER}", f"--pwfile={password}", "--no-sync",
            "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        settings = [f"port = {self._port}", *(f"{name} = '{value}'" for name, value in self._settings.items())]
        (self._folder / "data" / "postgresql.auto.conf").write_text("\n".join(settings) + "\n")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        try:
            self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._folder / 'log'}")
        except subprocess.CalledProcessError:
            log = self._folder / "log"
            pytest.fail(f"PostgreSQL did not start:\n{log.read_text() if log.exists() else ''}", pytrace=False)

    def stop(self, mode: str) -> None:
        """Stop it: ``fast`` in good order, ``immediate`` as a crash would."""
        self._run("pg_ctl", "stop", f"--mode={mode}", "--wait", "--silent")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._binaries / program), f"--pgdata={self._folder / 'data'}", *arguments]
        # No pipes: the server would inherit them, and reading them would never end.
        subprocess.run(command, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

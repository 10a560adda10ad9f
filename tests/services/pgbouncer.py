"""A private PgBouncer before a PostgreSQL: each transaction may have another connection of the server.

The program of this machine (installed with apt-get where that is possible). What is missing fails the test run, with
the command that installs it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.services import packages

MISSING = "The tests need PgBouncer. Install it: apt-get install pgbouncer"
PATIENCE = 20.0  # seconds until it takes connections
POOL = 3  # connections of the server, fewer than clients in most tests


def prepare() -> None:
    """Install what the fixtures will start, where that is needed and possible."""
    packages.install("pgbouncer", lambda: _program() is not None)


@pytest.fixture(scope="session")
def pgbouncer(postgres_url: str) -> Iterator[PgBouncer]:
    """One before the server of the tests, for all its databases."""
    with pooler(postgres_url) as started:
        yield started


@pytest.fixture
def pooled_database(pgbouncer: PgBouncer, postgres_database: str) -> str:
    """The address of a fresh database, through the pooler."""
    return pgbouncer.through(postgres_database)


@contextmanager
def pooler(url: str) -> Iterator[PgBouncer]:
    """One before the server of this address."""
    prepare()
    program = _program()
    if program is None:
        pytest.fail(MISSING, pytrace=False)
    with PgBouncer(program, url) as started:
        yield started


def _program() -> str | None:
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


class PgBouncer:
    """In transaction mode on a free port of the loopback; it may be killed and started again.

    Args:
        program: its path.
        url: of the server.
    """

    def __init__(self, program: str, url: str) -> None:
        self._program, self._server = program, urlsplit(url)
        self._folder = Path(tempfile.mkdtemp(prefix="flowkit-pgbouncer-"))
        # It refuses to run as root.
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        server = self._server
        users, settings = self._folder / "users.txt", self._folder / "pgbouncer.ini"
        users.write_text(f'"{server.username}" "{server.password}"\n')
        settings.write_text(
            f"[databases]\n* = host={server.hostname} port={server.port or 5432}\n\n"
            "[pgbouncer]\npool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {users}\nadmin_users = {server.username}\n"
            f"default_pool_size = {POOL}\nmax_client_conn = 200\nserver_login_retry = 1\n"
            # A test drops its database when it is done.
            "server_idle_timeout = 1\n"
        )
        if self._as:
            owner = pwd.getpwnam("postgres")
            for path in (self._folder, users, settings):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def through(self, url: str) -> str:
        """The same database, reached through the pooler."""
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    def start(self) -> None:
        """Start it and wait until a statement gets through."""
        command = [*self._as, self._program, "-q", str(self._folder / "pgbouncer.ini")]
        with (self._folder / "log").open("ab") as log:
            # A group of its own: what runs is a child of what drops the rights.
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                with psycopg.connect(self.through(self._url), autocommit=True, connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
            except psycopg.Error:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    said = (self._folder / "log").read_text(errors="replace")
                    pytest.fail(f"PgBouncer did not start:\n{said}", pytrace=False)
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """kill -9: all its connections are cut at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

"""Fixtures that all tests share: the real services."""

import logging
import signal
from collections.abc import Iterator

import pytest

from tests.hanging import pytest_runtest_teardown, pytest_timeout_cancel_timer, pytest_timeout_set_timer
from tests.services import pgbouncer as pooler
from tests.services import postgres, rabbitmq
from tests.services.pgbouncer import pgbouncer, pooled_database
from tests.services.postgres import empty_postgres_database, postgres_database, postgres_template, postgres_url
from tests.services.rabbitmq import namespace, private_rabbitmq, private_rabbitmq_server, rabbitmq_url
from tests.services.tls import tls
from tests.store import kept

__all__ = [
    "empty_postgres_database",
    "namespace",
    "own_log",
    "pgbouncer",
    "pooled_database",
    "postgres_database",
    "postgres_template",
    "postgres_url",
    "private_rabbitmq",
    "private_rabbitmq_server",
    "pytest_runtest_teardown",
    "pytest_timeout_cancel_timer",
    "pytest_timeout_set_timer",
    "rabbitmq_url",
    "tls",
]


kept.check_always()

# A shell ignores SIGINT for what it runs in the background, and every child would inherit that: Ctrl-C is tested here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """FlowKit's own log, as it was: a verb that a test calls in this process sets its level and its handler."""
    own = logging.getLogger("flowkit")
    level, handlers, propagate = own.level, own.handlers[:], own.propagate
    yield
    own.setLevel(level)
    own.handlers[:], own.propagate = handlers, propagate


# ``url`` is that of tests/contract, which runs each test over every store; ``own_postgres`` that of tests/chaos.
EVERY_STORE = {"url", "own_postgres"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install the services that the chosen tests need before any of them runs: no test's timeout pays for it."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if wanted & {"rabbitmq_url", "private_rabbitmq_server", "tls"}:
        rabbitmq.prepare()
    if wanted & {"postgres_url", *EVERY_STORE}:
        postgres.prepare()
    if wanted & {"pgbouncer", *EVERY_STORE}:
        pooler.prepare()

"""A password that is a word of its own is looked for wherever FlowKit writes: it must be nowhere."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote, unquote

import psycopg
import pytest

from tests.e2e.processes import WORKERS, Command, Shell

CANARY = "k4n4ri3nv0g3l"
MARKS = "/?#[]@:%"  # what has to be percent-encoded in an address, and what people forget to
STORE_CANARY = "s3cret-canary"  # of the PostgreSQL that tests start
BOOM = """
from flowkit import Node

node = Node("boom")

@node.main
async def main():
    raise RuntimeError("the node's own words")

node.run()
"""


@pytest.fixture
async def shell(private_rabbitmq, postgres_database, tmp_path, namespace):
    """Everything at its most talkative, with the canary in both addresses."""
    user = f"{namespace}-all"
    private_rabbitmq.ctl("add_user", user, CANARY + MARKS)
    private_rabbitmq.ctl("set_permissions", user, ".*", ".*", ".*")
    assert STORE_CANARY in postgres_database
    (tmp_path / "boom.py").write_text(BOOM)
    shell = Shell(
        tmp_path,
        FLOWKIT_BROKER_URL=f"amqp://{user}:{CANARY}{quote(MARKS, safe='')}@127.0.0.1:{private_rabbitmq.port}/",
        FLOWKIT_STORE_URL=postgres_database,
        FLOWKIT_NAMESPACE=namespace,
        FLOWKIT_NODES_DIR=str(WORKERS),
        FLOWKIT_LOG_LEVEL="DEBUG",
        FLOWKIT_HEARTBEAT="2",
    )
    yield shell
    await shell.close()


@pytest.mark.timeout(150)
async def test_no_password_is_written_anywhere(shell, private_rabbitmq, postgres_database, tmp_path):
    heard: list[str] = []

    async def call(*arguments: str, code: int | None = 0) -> str:
        got, out, said = await shell.call(*arguments)
        assert code in (None, got), said
        heard.extend((out, said))
        return out

    services: list[Command] = [await shell.coordinator(), await shell.worker("add", "./boom.py")]
    await call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "one", "--wait")
    await call("start", "boom", "--id", "two", "--wait", code=1)
    await call("start", "add", "-F", "a=9", "--id", "one", code=None)  # another one of this id
    address = shell.environment["FLOWKIT_BROKER_URL"]
    (tmp_path / "input.json").write_text('{"a": 3, "b": 4}')
    script = await shell.python(
        str(WORKERS / "add.py"), "input.json", "5f1c1a52-0000-4000-8000-000000000000", address, "add"
    )
    heard.extend(((await script.result())[1], script.said))
    private_rabbitmq.restart()
    await call("start", "add", "-F", "a=1", "-F", "b=2", "--id", "three", "--wait")

    verbs = ("config", "doctor", "runs list", "runs show one", "runs show two", "logs", "dead list", "nodes")
    for more in ((), ("--json",)):
        await asyncio.gather(*(call(*verb.split(), *more, code=None) for verb in verbs))
    for wrong in (address.replace(CANARY, f"{CANARY}-wrong"), address.replace("127.0.0.1", "127.0.0.2:1/x@127.0.0.1"),
                  address.replace("amqp:", "amqps:"), address.replace("amqp:", "http:"), unquote(address)):  # fmt: skip
        shell.environment["FLOWKIT_BROKER_URL"] = wrong
        await call("doctor", code=None)
    for service in services:
        assert await service.terminate() == 0
        heard.append(service.said)

    assert sum(map(len, heard)) > 5_000
    for text in heard:
        for secret in (CANARY, STORE_CANARY):
            assert secret not in text, text[max(text.find(secret) - 300, 0) : text.find(secret) + 100]
    rows = _everything(postgres_database)
    assert "the node's own words" in rows
    assert CANARY not in rows
    assert STORE_CANARY not in rows


def _everything(url: str) -> str:
    """Every value of every table."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        found = [
            row for (name,) in tables.fetchall() for row in connection.execute(f'SELECT * FROM "{name}"').fetchall()
        ]
    texts = [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for row in found for value in row
    ]
    return json.dumps(texts, ensure_ascii=False)

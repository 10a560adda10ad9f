"""Addresses with passwords that have any character: nothing of them is printed, and what cannot be read is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from flowkit.store.address import database_at
from flowkit.store.migrations import upgrade

SECRETS = ("k4n", "n4ri")  # also a part of it is too much
BROKERS = [
    "amqp://me:k4n/4ri@127.0.0.1:1/",
    "amqp://me:12/k4n4ri@127.0.0.1:1/",
    "amqp://me:k4n?4ri@127.0.0.1:1/",
    "amqp://me:k4n#4ri@127.0.0.1:1/",
    "amqp://me:k4n[4ri@127.0.0.1:1/",
    "amqp://me:k4n]4ri@127.0.0.1:1/",
    "amqp://me:k4n:4ri/x@127.0.0.1:1/",
    "amqp://me:k4n\u21004ri@127.0.0.1:1/",
    "amqp://me:k4n4ri",
    "amqp://me:p@x?heartbeat=k4n4ri@127.0.0.1:1/",
    "amqps://me:p@x?cafile=k4n4ri@127.0.0.1:1/",
    "amqp://me:k4n4ri@127.0.0.1:1/\n",
    " amqp://me:k4n4ri@127.0.0.1:1/",
    "http://me:k4n4ri@127.0.0.1:1/",
    "k4n4ri",
]
STORES = [
    "postgresql://me:k4n/4ri@127.0.0.1:1/db",
    "postgresql://me:12/k4n4ri@127.0.0.1:1/db",
    "postgresql://me:x@k4n4ri@127.0.0.1:1/db",
    "postgresql://me:k4n%4ri@127.0.0.1:1/db",
    "postgresql://me:1@127.0.0.1:1/db?passwort=k4n4ri",
    "postgresql://me:k4n 4ri@127.0.0.1:1/db",
    "postgresql://me:k4n4ri@127.0.0.1:1/db\n",
    "mysql://me:k4n4ri@127.0.0.1:1/db",
    "host=127.0.0.1 password=k4n4ri",
    "sqlite:///kept.db\n",
    "sqlite:///kept.db ",
    "sqlite:///k\0ept.db",
]
BROKER_VERBS = ["start add -F a=1", "logs", "broker apply", "worker --node add", "coordinator"]
STORE_VERBS = ["db status", "db upgrade", "runs list", "nodes", "dead list", "schedule list", "coordinator",
               "check --announced", "run add -F a=1 -F b=2"]  # fmt: skip


def clean(said):
    for secret in SECRETS:
        assert secret not in said.out + said.err
    assert "Traceback" not in said.err
    return said


@pytest.mark.parametrize("url", BROKERS)
def test_a_broker_address_that_cannot_be_read(flowkit, folder, url):
    (folder / "flowkit.toml").write_text(f"broker_url = {json.dumps(url)}\n")
    for verb in BROKER_VERBS:
        said = clean(flowkit(*verb.split()))
        assert (said.code, said.out) == (2, ""), (verb, said.err)
        assert said.err.count("\n") == 1
        assert "broker address" in said.err
        if "@127" in url and url.startswith("amqp") and "k4n4ri@127.0.0.1:1/" not in url:
            assert "Percent-encode user name and password: / as %2F" in said.err
    clean(flowkit("config"))
    clean(flowkit("config", "--json"))
    assert clean(flowkit("doctor")).code == 1


@pytest.mark.parametrize("url", STORES)
def test_a_store_address_that_cannot_be_read(flowkit, folder, url):
    (folder / "flowkit.toml").write_text(f"store_url = {json.dumps(url)}\nbroker_url = 'memory:x'\n")
    for verb in STORE_VERBS:
        given = () if not verb.startswith("run add") else ("--store", url)
        said = clean(flowkit(*verb.split(), *given))
        assert (said.code, said.out) == (2, ""), (verb, said.err)
        assert said.err.count("\n") == 1
        assert "store address" in said.err
    clean(flowkit("config"))
    assert clean(flowkit("doctor")).code == 1
    assert not list(folder.glob("k*"))  # no file under another name


@pytest.mark.parametrize("password", ["k4n#4ri", "k4n?4ri", "k4n?a=4ri", "k4n:4ri", "k4n[4]ri", "k4n&4ri"])
def test_a_postgresql_password_that_works_as_it_is_written(
    flowkit, postgres_database, password, monkeypatch, namespace
):
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE \"{namespace}\" SUPERUSER LOGIN PASSWORD '{password}'")
    parts = urlsplit(postgres_database)
    place = f"{parts.hostname}:{parts.port}{parts.path}"
    try:
        for written in (password, quote(password, safe="")):
            monkeypatch.setenv("FLOWKIT_STORE_URL", f"postgresql://{namespace}:{written}@{place}")
            monkeypatch.setenv("FLOWKIT_BROKER_URL", "amqp://me:k4n[4ri@h")
            for verb in ("db upgrade", "db status", "db status --json", "runs list", "config"):
                assert clean(flowkit(*verb.split())).code == 0
            assert "✔ store" in clean(flowkit("doctor")).out
        monkeypatch.setenv("FLOWKIT_STORE_URL", f"postgresql://{namespace}:{password}x@{place}")
        assert clean(flowkit("db", "status")).code == 3
    finally:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute(f'DROP OWNED BY "{namespace}"; DROP ROLE "{namespace}"')


def test_an_older_store_is_upgraded_in_its_own_file_whatever_its_name(flowkit, folder):
    url = "sqlite:///odd?name=#%41.db"
    database = database_at(url)
    upgrade(database, "0001")
    database.close()
    assert flowkit("db", "upgrade", "--store", url).code == 0
    assert flowkit("db", "status", "--store", url).code == 0
    assert [path.name for path in folder.glob("odd*.db")] == ["odd?name=#%41.db"]


def test_a_script_says_nothing_of_its_address_either(folder):
    (folder / "in.json").write_text('{"a": 1, "b": 2}')
    for url in BROKERS[:3]:
        done = subprocess.run(
            [sys.executable, "workers/add.py", "in.json", "5f1c1a52-0000-4000-8000-000000000000", url, "add"],
            capture_output=True, text=True, timeout=30, check=False, env=os.environ,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "4ri" not in done.stdout + done.stderr


def test_a_password_in_the_wrong_place_is_not_shown(flowkit, monkeypatch):
    for arguments in (
        "amqp://u:k4n4ri@h",
        "worker amqp://u:k4n4ri@h",
        "runs amqp://u:k4n/4ri@h",
        "config x sqlite:///k",
    ):
        said = clean(flowkit(*arguments.split()))
        assert (said.code, said.err.count("\n")) == (2, 1)
    monkeypatch.setenv("FLOWKIT_STORE_PASSWORD_FILE", "k4n4ri")
    said = clean(flowkit("config"))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "cannot be read: No such file or directory. Expected the name of a file" in said.err


def test_a_password_from_a_file_goes_into_any_address(flowkit, folder, monkeypatch):
    (folder / "secret").write_text("k4n/4ri?#[]@:%")
    monkeypatch.setenv("FLOWKIT_BROKER_PASSWORD_FILE", "secret")
    for url in ("amqp://me@[::1]:1/x", "amqp://me:old[]@h:1/x"):
        monkeypatch.setenv("FLOWKIT_BROKER_URL", url)
        assert "amqp://me:***@" in clean(flowkit("config")).out
    for url in ("amqp://[h/", "amqp://h"):
        monkeypatch.setenv("FLOWKIT_BROKER_URL", url)
        assert "names no user" in clean(flowkit("config")).err

"""Dead letters: looked at without consuming them, published again, removed."""

from __future__ import annotations

import asyncio
import json

import pytest

from flowkit.broker import Outgoing, open_broker
from flowkit.wire.topology import Topology
from tests.cli import kept

TYPED = b'{"type": "flowkit.start", "correlation_id": "r1", "app_id": "add", "message_id": "m1"}'


@pytest.fixture
def topology(rabbitmq_url, namespace, monkeypatch, flowkit) -> Topology:
    monkeypatch.setenv("FLOWKIT_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("FLOWKIT_NAMESPACE", namespace)
    assert flowkit("broker", "apply").code == 0
    return Topology(namespace)


def on_broker(url: str, work):
    """Run ``work(broker)`` on a connection of its own."""

    async def run():
        broker = open_broker(url)
        try:
            await broker.connect(10)
            return await work(broker)
        finally:
            await broker.close()

    return asyncio.run(run())


def take(url: str, queue) -> list:
    async def work(broker):
        consumer = broker.consume(queue, prefetch=10)
        async with asyncio.timeout(10):
            deliveries = await consumer.receive(10)
        await consumer.ack(deliveries)
        return deliveries

    return on_broker(url, work)


def test_none_yet(flowkit):
    flowkit("db", "upgrade")
    assert (flowkit("dead", "list").code, flowkit("dead", "list").err) == (0, "No dead letters.\n")
    assert flowkit("dead", "list", "--json").json == {"v": 1, "dead": [], "total": 0}
    for verb in ("show", "replay", "discard"):
        said = flowkit("dead", verb, "17")
        assert (said.code, "no dead letter '17'" in said.err) == (4, True)


def test_looking_consumes_nothing(flowkit):
    kept.bury(b'{"a": 1}', b"x" * 10, properties=TYPED)
    kept.bury(b"\xff\x00", reason="unknown-run")
    for _ in range(2):
        assert [one["id"] for one in flowkit("dead", "list", "--json").json["dead"]] == [3, 2, 1]
    (one,) = flowkit("dead", "list", "--json", "--reason", "unknown-run").json["dead"]
    assert (one["reason"], one["bytes"], one["queue"]) == ("unknown-run", 2, "flowkit.starts")
    assert flowkit("dead", "list", "--limit", "1").err == "2 more: flowkit dead list --limit 3\n"
    shown = flowkit("dead", "show", "1", "--json").json
    assert (shown["v"], shown["encoding"], shown["body"]) == (1, "utf-8", '{"a": 1}')
    assert shown["properties"]["type"] == "flowkit.start"
    assert '{"a": 1}' in flowkit("dead", "show", "1").out


def test_bodies_are_shown_safely(flowkit):
    kept.bury("\x1b[2Jgone \u202e backwards".encode(), b"\xff\xfe\x00", b"y" * 10_000)
    assert "\ufffd[2Jgone \ufffd backwards" in flowkit("dead", "show", "1").out
    assert "ff fe 00" in flowkit("dead", "show", "2").out
    assert flowkit("dead", "show", "2", "--json").json["encoding"] == "base64"
    assert "… (10,000 bytes: --json has all)" in flowkit("dead", "show", "3").out


@pytest.mark.parametrize("chosen", [(), ("1", "--all"), ("--all", "--reason", "invalid")])
@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_one_way_to_choose(flowkit, verb, chosen):
    kept.bury(b"{}")
    said = flowkit("dead", verb, *chosen)
    assert (said.code, "which dead letters?" in said.err) == (2, True)


def test_discard(flowkit):
    kept.bury(b"1", b"2", b"3")
    kept.bury(b"4", reason="other")
    said = flowkit("dead", "discard", "--reason", "invalid", "--dry-run")
    assert (said.code, said.out.split(), said.err) == (0, ["3", "2", "1"], "3 dead letters to discard\n")
    said = flowkit("dead", "discard", "--reason", "invalid")
    assert (said.code, "add --yes" in said.err) == (6, True)
    assert flowkit("dead", "list", "--json").json["total"] == 4
    assert flowkit("dead", "discard", "--reason", "invalid", "--yes").code == 0
    assert flowkit("dead", "discard", "4").err == "1 dead letter discarded\n"
    assert flowkit("dead", "list", "--json").json["total"] == 0


def test_replay_puts_it_back_as_it_was(flowkit, topology, rabbitmq_url):
    kept.bury(b'{"a": 1}', b'{"b": 2}', queue=topology.starts.name, properties=TYPED)
    said = flowkit("dead", "replay", "--all", "--yes")
    assert (said.code, said.err.count("is in")) == (0, 2), said.err
    deliveries = take(rabbitmq_url, topology.starts)
    assert sorted(one.body for one in deliveries) == [b'{"a": 1}', b'{"b": 2}']
    one = deliveries[0]
    assert (one.type, one.correlation_id, one.app_id, one.message_id) == ("flowkit.start", "r1", "add", "m1")
    assert flowkit("dead", "list", "--json").json["total"] == 0


def test_a_replay_that_cannot_be_keeps_its_letter(flowkit, topology):
    kept.bury(b"{}", queue=topology.tasks("nosuch").name)
    kept.bury(b"{}", queue="somebody.elses")
    said = flowkit("dead", "replay", "1")
    assert (said.code, "does not take it" in said.err) == (6, True), said.err
    said = flowkit("dead", "replay", "2")
    assert (said.code, "no queue of namespace" in said.err) == (6, True), said.err
    assert flowkit("dead", "list", "--json").json["total"] == 2


def test_the_unreadable_are_counted_and_emptied(flowkit, topology, rabbitmq_url):
    message = Outgoing("", topology.unreadable.name, b"\xff", "unknown")
    assert on_broker(rabbitmq_url, lambda broker: broker.publish([message] * 3)) == [None] * 3
    assert flowkit("dead", "list", "--unreadable", "--json").json == {"v": 1, "unreadable": 3}
    assert flowkit("dead", "discard", "--unreadable", "--dry-run").code == 0
    assert flowkit("dead", "discard", "--unreadable").code == 6
    assert flowkit("dead", "list", "--unreadable").out == f"3 messages in {topology.unreadable.name}\n"
    assert flowkit("dead", "discard", "--unreadable", "--yes").code == 0
    assert flowkit("dead", "list", "--unreadable", "--json").json["unreadable"] == 0


def test_broker_apply_as_json(flowkit, topology):
    parts = flowkit("broker", "apply", "--json").json["parts"]
    assert {part["name"] for part in parts} == {part.name for part in topology.standing}
    assert all(part["declared"] for part in parts)
    assert json.dumps({"kind": "queue", "name": topology.dead.name, "declared": True}) in map(json.dumps, parts)

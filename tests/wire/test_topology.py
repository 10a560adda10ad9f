"""The names and arguments of every exchange and queue: frozen, since a broker refuses other arguments (406)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.generate import LOGINS
from flowkit.broker.definitions import definitions
from flowkit.errors import UsageError
from flowkit.wire.topology import Binding, Topology

DEFINITIONS = Path(__file__).parents[2] / "broker" / "definitions.json"


def test_the_committed_definitions_are_current() -> None:
    assert json.loads(DEFINITIONS.read_text()) == definitions(Topology(), logins=LOGINS), "run: make docs"


def test_every_binding_ends_at_exchanges_and_queues_that_stand() -> None:
    made = definitions(Topology())
    exchanges = {exchange["name"] for exchange in made["exchanges"]}
    queues = {queue["name"] for queue in made["queues"]}
    for binding in made["bindings"]:
        assert binding["source"] in exchanges
        assert binding["destination"] in queues
    for queue in made["queues"]:
        assert queue["arguments"].get("x-dead-letter-exchange", "") in {*exchanges, ""}


def test_the_queue_of_a_node() -> None:
    queue = Topology("staging").tasks("resize")
    assert queue.name == "staging.tasks.resize"
    assert queue.bindings == (Binding("staging.tasks", "resize"),)
    assert dict(queue.arguments) == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-dead-letter-exchange": "staging.dead",
        "x-dead-letter-routing-key": "staging.tasks.resize",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_namespaces_share_no_name() -> None:
    one, other = (
        {part.name for part in Topology(name).standing if hasattr(part, "name")} for name in ("flowkit", "staging")
    )
    assert not one & other


def test_only_a_reader_s_own_queues_are_exclusive() -> None:
    topology = Topology()
    assert topology.control("w").exclusive
    assert topology.runs("l").exclusive
    assert not any(getattr(part, "exclusive", False) for part in topology.standing)


@pytest.mark.parametrize("name", ["", "a.b", "9a", "a b", "a" * 64, "ä"])
def test_a_namespace_is_a_word_without_dots(name: str) -> None:
    with pytest.raises(UsageError, match="namespace"):
        Topology(name)

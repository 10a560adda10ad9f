"""Which run a start message means."""

from __future__ import annotations

import logging

import pytest

from flowkit.broker.protocol import Delivery, PlainProperties
from flowkit.coordinator.reading import Reader
from flowkit.wire import codec
from flowkit.wire.topology import Topology

TOPOLOGY = Topology()


def run_of(message_id: str | None = None, *, redelivered: bool = False, **start: object) -> str:
    properties = PlainProperties(message_id=message_id)
    body = codec.dumps({"node": "a", **start})
    delivery = Delivery(TOPOLOGY.starts.name, body, 1, redelivered=redelivered, properties=lambda: properties)
    (event,) = Reader(TOPOLOGY).read(delivery).events
    return event.run_id


def test_a_start_delivered_again_is_known_by_its_run_id_or_its_message_id():
    assert run_of(run_id="r") == run_of("m1", run_id="r", redelivered=True) == "r"
    assert run_of("m1") == run_of("m1", redelivered=True)
    assert run_of("m1") != run_of("m2")


def test_a_start_with_neither_begins_a_run_at_each_delivery_and_the_log_says_so(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "flowkit")
    first = run_of()
    assert not caplog.records
    assert run_of(redelivered=True) != first
    (record,) = caplog.records
    assert record.action == "unidentified_start"
    assert "neither run_id nor message_id was delivered again" in record.getMessage()

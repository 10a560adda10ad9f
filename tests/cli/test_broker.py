"""``flowkit broker``: what stands, what should, and who may do what."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest

from flowkit.wire.topology import Topology
from tests.cli.test_dead import on_broker

USERS = {"FLOWKIT_USERS": "pictures=worker:resize,store;front=starter"}


@pytest.fixture(autouse=True)
def broker(rabbitmq_url, namespace, monkeypatch):
    monkeypatch.setenv("FLOWKIT_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("FLOWKIT_NAMESPACE", namespace)


@pytest.fixture
def users(monkeypatch):
    for name, value in USERS.items():
        monkeypatch.setenv(name, value)


def test_apply_declares_the_queues_of_nodes_too(flowkit, namespace, users):
    parts = flowkit("broker", "apply", "--node", "crop", "--json").json["parts"]
    names = [part["name"] for part in parts if part["declared"]]
    nodes = [name.rpartition(".")[2] for name in names if name.startswith(f"{namespace}.tasks.")]
    assert nodes == ["crop", "resize", "store"]


def test_diff_says_what_is_missing_and_changes_nothing(flowkit):
    for _ in range(2):
        said = flowkit("broker", "diff", "--json")
        assert said.code == 1
        assert {part["state"] for part in said.json["parts"]} == {"missing"}
    flowkit("broker", "apply")
    said = flowkit("broker", "diff", "--node", "late", "--json")
    assert (said.code, said.json["same"]) == (1, False)
    assert [part["name"].rpartition(".")[2] for part in said.json["parts"] if part["state"] != "same"] == ["late"]
    assert flowkit("broker", "diff").code == 0


def test_diff_says_what_stands_with_other_arguments(flowkit, rabbitmq_url, namespace):
    results = Topology(namespace).results
    other = replace(results, arguments=tuple({**dict(results.arguments), "x-delivery-limit": 3}.items()), bindings=())
    on_broker(rabbitmq_url, lambda broker: broker.declare([other]))
    said = flowkit("broker", "diff")
    assert said.code == 1
    assert f"! differs   queue     {namespace}.results" in said.out
    assert "x-delivery-limit = '3', and '10' was asked for" in said.out


def test_definitions_hold_topology_logins_and_hashes(flowkit, namespace, users, tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "front").write_text("pässword\n")
    said = flowkit("broker", "definitions", "--passwords", str(tmp_path / "secrets"), "--vhost", "shop")
    assert said.code == 0
    assert said.err == "without a password: pictures; give each one: rabbitmqctl change_password LOGIN\n"
    assert "pässword" not in said.out
    made = said.json
    assert {queue["vhost"] for queue in made["queues"]} == {"shop"}
    assert f"{namespace}.tasks.resize" in {queue["name"] for queue in made["queues"]}
    assert [right["user"] for right in made["permissions"]] == ["pictures", "front"]
    pictures, front = made["users"]
    assert pictures["password_hash"] == ""
    kept = base64.b64decode(front["password_hash"])
    assert kept[4:] == hashlib.sha256(kept[:4] + "pässword".encode()).digest()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["definitions", "--passwords", "nowhere"], "--passwords nowhere: expected a folder"),
        (["definitions", "--node", "a b"], "--node 'a b': expected the name of a node"),
        (["apply", "--node", "../x"], "--node '../x': expected the name of a node"),
        (["diff", "--node", ""], "--node '': expected the name of a node"),
    ],
)
def test_wrong_input_is_said(flowkit, arguments, why):
    said = flowkit("broker", *arguments)
    assert said.code == 2
    assert why in said.err


def test_a_password_file_that_cannot_be_one_is_named(flowkit, users, tmp_path):
    for content, why in ((b"", "is empty"), (b"\xff\xfe", "cannot be read")):
        (tmp_path / "front").write_bytes(content)
        said = flowkit("broker", "definitions", "--passwords", str(tmp_path))
        assert said.code == 2
        assert f"{tmp_path}/front {why}" in said.err

"""Logins, roles and rights: what settings may say, and what each role may do by name."""

from __future__ import annotations

import re

import pytest

from flowkit.errors import UsageError
from flowkit.wire.access import Login, Logins, Role, parse, parse_all, rights


@pytest.mark.parametrize(
    ("said", "login"),
    [
        ("starter", Login("web", Role.STARTER)),
        (" tail ", Login("web", Role.TAIL)),
        ("worker: resize, store", Login("web", Role.WORKER, ("resize", "store"))),
        ("worker:resize store", Login("web", Role.WORKER, ("resize", "store"))),
        ("worker: *", Login("web", Role.WORKER, ("*",))),
    ],
)
def test_a_login_is_read(said, login):
    assert parse("web", said) == login


@pytest.mark.parametrize(
    ("name", "said", "why"),
    [
        ("web", "boss", "login 'web' = 'boss': expected one of admin, coordinator, worker"),
        ("web", "", "expected one of admin"),
        ("web", "worker", "expected the nodes that it works for"),
        ("web", "worker: ../x", "'../x' is no name of a node"),
        ("web", "tail: resize", "only a worker has nodes"),
        ("w(.*)", "tail", "expected a name like"),
        ("", "tail", "expected a name like"),
    ],
)
def test_what_is_no_login_is_said(name, said, why):
    with pytest.raises(UsageError, match=re.escape(why)):
        parse(name, said)


# What each role may do, by the names that a right is asked for; on a real broker in tests/security.
ALLOWED = {
    "worker": {
        "configure": {"flowkit.control.w1"},
        "write": {"flowkit.results", "flowkit.logs", "flowkit.workers", "flowkit.control.w1"},
        "read": {"flowkit.tasks.resize", "flowkit.control", "flowkit.control.w1"},
    },
    "starter": {
        "configure": {"flowkit.runs.l1"},
        "write": {"flowkit.starts", "flowkit.runs.l1"},
        "read": {"flowkit.runs", "flowkit.runs.l1"},
    },
    "script": {"configure": set(), "write": {"flowkit.starts", "flowkit.logs"}, "read": set()},
    "tail": {"configure": set(), "write": set(), "read": {"flowkit.logs"}},
    "operator": {
        "configure": {"flowkit.runs.l1"},
        "write": {"flowkit.starts", "flowkit.commands", "flowkit.runs.l1"},
        "read": {"flowkit.runs", "flowkit.runs.l1", "flowkit.logs"},
    },
    "coordinator": {
        "configure": {"flowkit.tasks.resize", "flowkit.tasks.other", "flowkit.store", "flowkit.store.42"},
        "write": {"flowkit.tasks", "flowkit.tasks.resize", "flowkit.tasks.other", "flowkit.runs", "flowkit.control",
                  "flowkit.dead", "amq.default"},
        "read": {"flowkit.tasks", "flowkit.tasks.resize", "flowkit.tasks.other", "flowkit.starts", "flowkit.commands",
                 "flowkit.results", "flowkit.dead", "flowkit.unreadable", "flowkit.logs", "flowkit.workers"},
    },
}  # fmt: skip
NAMES = {
    "flowkit.starts", "flowkit.commands", "flowkit.tasks", "flowkit.tasks.resize", "flowkit.tasks.other",
    "flowkit.results", "flowkit.runs", "flowkit.runs.l1", "flowkit.logs", "flowkit.workers", "flowkit.control",
    "flowkit.control.w1", "flowkit.dead", "flowkit.unreadable", "flowkit.store", "flowkit.store.42", "amq.default",
    "amq.topic", "flowkitXresults", "other.results", "flowkit.results2", "my.flowkit.results", "flowkit",
}  # fmt: skip


@pytest.mark.parametrize("role", ALLOWED)
@pytest.mark.parametrize("right", ["configure", "write", "read"])
def test_a_role_may_do_what_it_needs_and_nothing_else(role, right):
    login = Login("x", Role(role), ("resize",) if role == "worker" else ())
    pattern = getattr(rights(login, "flowkit"), right)
    assert {name for name in NAMES if re.search(pattern, name)} == ALLOWED[role][right]


def test_a_worker_of_all_nodes_reads_all_their_queues():
    read = rights(Login("x", Role.WORKER, ("*",)), "flowkit").read
    assert all(re.search(read, f"flowkit.tasks.{node}") for node in ("resize", "other"))
    assert not re.search(read, "flowkit.tasks")


def test_an_admin_stays_in_the_namespace():
    granted = rights(Login("x", Role.ADMIN), "staging")
    for pattern in (granted.configure, granted.write, granted.read):
        assert {name for name in (*NAMES, "staging.results") if re.search(pattern, name)} <= {
            "staging.results",
            "amq.default",
        }


def test_who_may_answer_for_which_nodes():
    logins = Logins(parse_all({"pictures": "worker: resize, store", "any": "worker: *", "web": "starter",
                               "hub": "coordinator", "root": "admin"}))  # fmt: skip
    assert logins.answers_for("pictures") == {"resize", "store"}
    assert logins.answers_for("web") == logins.answers_for("stranger") == logins.answers_for(None) == frozenset()
    assert logins.answers_for("any") is logins.answers_for("hub") is logins.answers_for("root") is None


def test_nothing_is_asked_where_no_worker_is_named():
    for said in ({}, {"web": "starter"}):
        assert Logins(parse_all(said)).answers_for("stranger") is None

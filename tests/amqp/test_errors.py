"""Errors that are told to many."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from flowkit.amqp import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AmqpError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_can_be_copied(kind):
    error = kind("what was wrong")
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is kind
        assert (str(again), vars(again)) == ("what was wrong", vars(error))


def test_a_code_is_shown():
    assert str(errors.ChannelClosed("NOT_FOUND - no queue 'q'", 404)) == "NOT_FOUND - no queue 'q' (404)"
    assert copy.copy(errors.ChannelClosed("x", 404)).code == 404


def test_the_tree_is_drawn():
    for kind in KINDS:
        assert kind.__name__.startswith("_") or re.search(rf"\b{kind.__name__}\b", errors.__doc__ or "")

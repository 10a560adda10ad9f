"""What an author may say to a Node, and what it answers."""

import subprocess
import sys

import pytest
import tenacity
from pydantic import BaseModel

import flowkit
from flowkit import Node
from flowkit.errors import InvalidNode, UsageError
from flowkit.worker.announce import describe_node


async def fine():
    return [], {}, ""


class Inputs(BaseModel):
    a: int


def not_async():
    return [], {}, ""


async def generator():
    yield 1


async def untyped(inputs):
    return [], {}, ""


async def wrongly_typed(inputs: dict):
    return [], {}, ""


async def too_many(a: Inputs, b: Inputs):
    return [], {}, ""


async def by_keyword(*, a: Inputs):
    return [], {}, ""


async def unreadable(a: "Nowhere"):  # noqa: F821
    return [], {}, ""


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (not_async, "not_async is not async; write 'async def main():'"),
        (3, "3 is not async"),
        (None, "None is not async"),
        (generator, "generator yields"),
        (untyped, "parameter inputs of untyped has no pydantic model"),
        (wrongly_typed, "parameter inputs of wrongly_typed has no pydantic model"),
        (too_many, "takes a, b; expected at most one parameter"),
        (by_keyword, "takes a by keyword only"),
        (unreadable, "annotations of unreadable cannot be read: name 'Nowhere' is not defined"),
    ],
)
def test_what_cannot_be_a_main(main, said):
    with pytest.raises(InvalidNode) as caught:
        Node("work").register_main(main)
    assert said in str(caught.value)
    assert "node 'work'" in str(caught.value)


def test_what_can_be_a_main():
    class Callable:
        async def __call__(self):
            return [], {}, ""

        async def method(self, inputs: Inputs):
            return [], {}, ""

    async def with_default(inputs: Inputs, verbose=False, *rest, **more):
        return [], {}, ""

    for main, model in [(fine, None), (Callable(), None), (Callable().method, Inputs), (with_default, Inputs)]:
        node = Node("work")
        node.register_main(main)
        assert node.definition.model is model


def test_the_decorator_gives_the_function_back():
    node = Node("work")
    assert node.main(fine) is fine
    assert node.definition.main is fine
    with pytest.raises(InvalidNode, match="has a main already"):
        node.main(fine)


def test_a_node_without_main():
    with pytest.raises(InvalidNode, match=r"test_node.py registers no main; write @node.main"):
        _ = Node("work").definition


@pytest.mark.parametrize("name", ["", "9a", "a b", "../x", "a.b", "x" * 64, "a\n", "ä", 3])
def test_names(name):
    with pytest.raises(InvalidNode, match="cannot be the name of a node"):
        Node(name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout=0; expected seconds"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"queue_timeout": -1}, "queue_timeout=-1"),
        ({"timeout": True}, "timeout=True"),
        ({"concurrency": 0}, "concurrency=0; expected a whole number"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"on_error": "no name"}, "on_error 'no name' cannot be the name"),
        ({"limit": 0}, "limit=0; expected a whole number from 1 to 2,147,483,647"),
        ({"limit": 2**31}, "limit=2147483648; expected a whole number from 1 to 2,147,483,647"),
        ({"concurrency": 10**5_000}, "concurrency=(int, whose repr() raised ValueError); expected a whole number"),
        ({"timeout": 10**5_000}, "timeout=(int, whose repr() raised ValueError); expected seconds"),
        ({"rate": "5/s" * 9_000}, "rate='5/s5/s5/s5/s"),
        ({"limit": 1, "key": "\ud800"}, "key='\\ud800'; expected the name of an input, up to 100 characters"),
        ({"limit": -3}, "limit=-3"),
        ({"limit": True}, "limit=True"),
        ({"limit": 2.0}, "limit=2.0"),
        ({"rate": "0/s"}, "rate='0/s'; expected a number from 1 on, then s, min, h or d, such as '100/s'"),
        ({"rate": "100"}, "rate='100'"),
        ({"rate": "1.5/s"}, "rate='1.5/s'"),
        ({"rate": "5/week"}, "rate='5/week'"),
        ({"rate": 100}, "rate=100"),
        ({"key": "customer"}, "key='customer' tells limits apart; expected limit or rate beside it"),
        ({"limit": 1, "key": ""}, "key=''; expected the name of an input"),
        ({"limit": 1, "key": 5}, "key=5"),
    ],
)
def test_options(options, said):
    node = Node("work", **options)
    node.main(fine)
    with pytest.raises(InvalidNode) as caught:
        _ = node.definition
    assert said in str(caught.value)


def test_limits_are_announced_as_they_were_written():
    node = Node("work", limit=5, rate="1/30s", key="customer")
    node.main(fine)
    told = describe_node(node.definition)
    assert (told.limit, told.rate, told.key) == (5, "1/30s", "customer")


def test_policies_have_to_be_callable():
    with pytest.raises(InvalidNode, match="retry=3; expected one of tenacity's retry objects"):
        Node("work", retry=3)
    node = Node("work", stop=tenacity.stop_after_attempt(2))
    node.main(fine)
    assert node.definition.policy is not None


def test_outside_of_a_task_there_are_no_inputs():
    with pytest.raises(UsageError, match=r"get_inputs\(\) is for main"):
        Node("work").get_inputs()
    with pytest.raises(UsageError, match=r"get_id\(\) is for main"):
        Node("work").get_id()


def test_the_public_face():
    assert flowkit.Send("a").node == "a"
    assert set(flowkit.__all__) <= set(dir(flowkit))
    with pytest.raises(AttributeError, match="it has Client, Gather"):
        _ = flowkit.nothing
    for name in flowkit.__all__:
        assert getattr(flowkit, name).__doc__


def test_importing_flowkit_is_light():
    code = "import flowkit, sys; print({'pydantic', 'aio_pika', 'asyncio'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

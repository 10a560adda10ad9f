"""Who may begin: slots of nodes, and those who have to be alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowkit.worker.execution import Execution, key_of
from flowkit.worker.turns import Turns

from .tasks import define, task


async def main():
    return [], {}, ""


DEFINITIONS = {name: define(main, name) for name in ("a", "b")}


class Door:
    """Turns of two nodes, with two slots each, and who has begun."""

    def __init__(self):
        self.begun: list[Execution] = []
        self.turns = Turns({"a": 2, "b": 2}, self.begun.append)

    def ask(self, node: str, *, suspect: bool = False) -> Execution:
        mine = task(node)
        execution = Execution(key_of(mine), mine, DEFINITIONS[node], suspect)
        self.turns.ask(execution)
        return execution

    def leave(self, *executions: Execution) -> None:
        for execution in executions:
            self.turns.leave(execution)


async def test_as_many_of_a_node_as_it_has_slots():
    door = Door()
    first, second, third, other = door.ask("a"), door.ask("a"), door.ask("a"), door.ask("b")
    assert door.begun == [first, second, other]
    door.leave(second)
    assert door.begun == [first, second, other, third]
    assert set(door.turns.inside) == {first, other, third}


async def test_one_that_may_kill_its_process_is_alone_and_comes_before_who_comes_later():
    door = Door()
    first, suspect, later = door.ask("a"), door.ask("b", suspect=True), door.ask("a")
    assert door.begun == [first]
    door.leave(first)
    assert door.begun == [first, suspect]
    door.leave(suspect)
    assert door.begun == [first, suspect, later]


async def test_who_does_not_want_to_any_more_makes_room():
    door = Door()
    first, suspect, behind = door.ask("a"), door.ask("b", suspect=True), door.ask("a")
    without_slot = door.ask("a")
    door.leave(without_slot)
    assert door.begun == [first]
    door.leave(suspect)
    assert door.begun == [first, behind]
    door.leave(first, behind)
    assert await door.turns.all_left(0)


async def test_nothing_begins_after_the_end():
    door = Door()
    first, suspect = door.ask("a"), door.ask("a", suspect=True)
    door.turns.close()
    door.ask("b")
    door.leave(first)
    assert door.begun == [first]
    door.leave(suspect)
    assert await door.turns.all_left(0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()) | st.integers(0, 100), max_size=60))
async def test_everybody_begins_once_in_the_order_of_his_node(steps):
    door = Door()
    asked: list[Execution] = []
    for step in steps:
        if isinstance(step, tuple):
            asked.append(door.ask(step[0], suspect=step[1]))
        elif inside := door.turns.inside:
            door.leave(sorted(inside, key=asked.index)[step % len(inside)])
        now = door.turns.inside
        assert all(sum(one.task.node == node for one in now) <= 2 for node in "ab")
        assert len(now) == 1 or not any(one.suspect for one in now)
    while inside := door.turns.inside:
        door.leave(inside[0])
    for node in "ab":
        begun = [one for one in door.begun if one.task.node == node]
        assert begun == [one for one in asked if one.task.node == node]

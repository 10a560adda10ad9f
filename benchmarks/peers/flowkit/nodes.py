"""The tasks in FlowKit: nodes that name what comes next, a Gather."""

from benchmarks.peers.work import noted, passed_on
from flowkit import Gather, Logger, Node, Send

step, nothing, chatty = Node("step"), Node("nothing"), Node("chatty")
wide, leaf, join = Node("wide"), Node("leaf"), Node("join")
logger = Logger(chatty)


@step.main
async def go_on():
    payload = step.get_inputs()
    return (["step"] if payload["step"] < payload["steps"] else []), passed_on(payload), ""


@nothing.main
async def do_nothing():
    payload = nothing.get_inputs()
    noted(payload["number"], payload["step"])
    return [], {}, ""


@chatty.main
async def say_much():
    payload = chatty.get_inputs()
    for line in range(10):
        await logger.info(f"Line {line} of task {payload['number']}")
    noted(payload["number"], payload["step"])
    return [], {}, ""


@wide.main
async def fan_out():
    payload = wide.get_inputs()
    noted(payload["number"], 1)
    number = {"number": payload["number"]}
    return [Gather([Send("leaf", number) for _ in range(payload["width"])], then=Send("join", number))], {}, ""


@leaf.main
async def one_of_many():
    number = leaf.get_inputs()["number"]
    noted(number, 2)
    return [], {"number": number}, ""


@join.main
async def after_all():
    noted(join.get_inputs()["number"], 3)
    return [], {}, ""

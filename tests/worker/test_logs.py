"""Log lines on their way: in batches, numbered, and never in a task's way."""

import asyncio
import logging
import logging.config
import os
from datetime import datetime
from itertools import pairwise

import pytest
from pydantic import BaseModel, model_serializer, model_validator

from flowkit import Logger, Node, log
from flowkit.wire.messages import Log, decode_many
from flowkit.wire.topology import Binding, Queue
from flowkit.worker.logs import Shipper
from tests.logging_state import restored_logging

from .tasks import task


@pytest.fixture
async def shipper(house):
    await house.mine.declare(house.topology.standing)
    shipper = Shipper(house.broker, house.topology, worker="w", linger=0, max_lines=100, clock=lambda: 5.0)
    running = asyncio.create_task(shipper.run())
    yield shipper
    running.cancel()


@pytest.fixture
def captured():
    """stdlib logging as a worker process has it."""
    with restored_logging():
        log.capture()
        yield


async def test_a_line_has_all_that_the_contract_says(house, shipper):
    of = task(attempt=2)
    shipper.write(of, "INFO", "hello", {"a": 1}, "Traceback …")
    (line,) = await house.logs()
    assert line == Log(
        ts=5, level="INFO", message="hello", context={"a": 1}, run_id=of.run_id, task_id=of.task_id, node="work",
        attempt=2, worker="w", seq=1, exception="Traceback …",
    )  # fmt: skip


async def test_of_a_long_line_all_is_cut_that_the_contract_bounds(house, shipper):
    shipper.write(task(), "L" * 100, "m" * 70_000, {"n": 2**64}, "t" * 70_000)
    (line,) = await house.logs()
    assert line.level == "L" * 23 + "… (77 characters left out)"
    assert "bytes left out" in line.message
    assert "bytes left out" in line.exception
    assert line.context == {"n": "18446744073709551616"}


@pytest.mark.parametrize(("level", "sent"), [("\ud800", "?"), (35, "35"), (None, "None")])
async def test_a_level_that_is_no_text_costs_neither_the_line_nor_those_behind_it(house, shipper, level, sent):
    shipper.write(task(), level, "first")
    shipper.write(task(), "INFO", "second")
    assert [(line.level, line.message) for line in await house.logs(2)] == [(sent, "first"), ("INFO", "second")]


async def test_one_node_a_message_and_contiguous_numbers(house, shipper):
    for number in range(50):
        shipper.write(task("ab"[number % 2]), "INFO", str(number))
    await shipper.flush()
    deliveries = await house.receive(house.topology.logs, 2)
    lines = [decode_many(Log, one.body) for one in deliveries]
    assert [{line.node for line in some} for some in lines] == [{"a"}, {"b"}]
    assert [one.app_id for one in deliveries] == ["a", "b"]
    assert sorted(line.seq for some in lines for line in some) == list(range(1, 51))


async def test_a_flood_is_dropped_and_counted(house, shipper):
    for number in range(1_000):
        shipper.write(task(), "INFO", str(number))
    assert shipper.crowded
    await shipper.flush()
    lines = await house.logs(101)
    (said,) = [line for line in lines if line.context == {"dropped": 900}]
    assert said.message == "900 log lines dropped: they came faster than they could be sent"
    assert all(b.seq - a.seq == 1 for a, b in pairwise(lines))


async def test_a_link_that_is_down_keeps_lines_in_order(house, shipper):
    house.broker.go_down()
    for number in range(10):
        shipper.write(task(), "INFO", str(number))
    await shipper.flush(0.02)  # and gives up
    house.broker.come_back()
    await shipper.flush()
    lines = await house.logs(10)
    assert [line.message for line in lines] == [str(number) for number in range(10)]
    assert [line.seq for line in lines] == list(range(1, 11))


class Evil:
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("context", "sent"),
    [
        ({"when": datetime(2026, 1, 1)}, {"when": "2026-01-01 00:00:00"}),  # noqa: DTZ001
        ({"evil": Evil()}, {"evil": "(Evil)"}),
        ({"nan": float("nan")}, {"nan": "nan"}),
        ({1: {2}}, {"1": [2]}),
        ({"big": 2**70}, {"big": str(2**70)}),
        ({"s": "\ud800"}, {"s": "?"}),
        ("no dict", {"context": "no dict"}),
        ({"x": "y" * 100_000}, {"left_out": "context of 100,008 bytes, over the limit of 65,536"}),
    ],
)
async def test_whatever_stands_in_a_context_the_line_arrives(house, shipper, context, sent):
    shipper.write(task(), "INFO", "m\ud800", context)
    (line,) = await house.logs()
    assert line.context == sent
    assert line.message == "m?"


async def test_somebody_elses_full_queue_loses_no_line_of_the_stream(house, shipper, caplog, monkeypatch):
    monkeypatch.setattr("flowkit.worker.logs._REFUSALS", 2)
    await house.mine.declare([Queue("own", (), (Binding(house.topology.name("logs")),))])
    house.mine.limit_length("own", 0)
    for number in range(3):
        shipper.write(task(), "INFO", str(number))
        await shipper.flush()
    lines = await house.logs(6)
    assert [line.message for line in lines] == ["0", "0", "1", "1", "2", "2"], "each twice, and none a third time"
    told = [one for one in caplog.records if getattr(one, "action", "") == "logs_lost"]
    assert len(told) == 1, "not one for each batch"


async def test_a_cyclic_context(house, shipper):
    cycle = {}
    cycle["self"] = cycle
    shipper.write(task(), "INFO", "m", cycle)
    assert (await house.logs())[0].message == "m"


async def test_lines_from_threads(house, shipper):
    await asyncio.gather(*[asyncio.to_thread(shipper.write, task(), "INFO", str(n)) for n in range(20)])
    lines = await house.logs(20)
    assert sorted(int(line.message) for line in lines) == list(range(20))
    assert [line.seq for line in lines] == list(range(1, 21))


async def test_the_logger_in_a_worker(house):
    node = Node("work")
    logger = Logger(node)

    @node.main
    async def main():
        await logger.debug("d")
        await logger.info("i")
        await logger.warning("w")
        await logger.log_with_context("info", "c", {"user": 7})
        await logger.log_with_context(logging.ERROR, "n")
        try:
            {}["missing"]
        except KeyError:
            await logger.error("e", include_traceback=True)
        await logger.error("plain", include_traceback=True)
        await logger.flush()
        return [], {}, ""

    async with house.worker(node.definition):
        of = task(attempt=4)
        await house.send(of)
        lines = await house.logs(7)
    assert [line.level for line in lines] == ["DEBUG", "INFO", "WARNING", "INFO", "ERROR", "ERROR", "ERROR"]
    assert lines[3].context == {"user": 7}
    assert lines[5].exception.endswith("KeyError: 'missing'")
    assert lines[6].exception is None
    assert {(line.task_id, line.run_id, line.node, line.attempt) for line in lines} == {
        (of.task_id, of.run_id, "work", 4)
    }


async def test_a_flood_of_lines_does_not_hold_up_the_task(house):
    node = Node("work")
    logger = Logger(node)

    @node.main
    async def main():
        for number in range(50_000):
            await logger.info(str(number))
        return [], {}, "done"

    async with house.worker(node.definition):
        house.broker.block()  # nothing leaves
        await house.mine.declare(house.topology.standing)
        house.broker.unblock()
        await house.send(task())
        assert (await house.result()).message == "done"


async def test_stdlib_logging_reaches_the_run(house, captured):
    node = Node("work")

    def blocking():
        logging.getLogger("lib").warning("from a thread")

    @node.main
    async def main():
        logging.getLogger().info("root %s", 1)
        logging.getLogger("aio_pika.connection").error("kept out of the loop")
        logging.getLogger("flowkit.worker").error("so are we")
        await asyncio.to_thread(blocking)
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logging.getLogger("lib").exception("went wrong")
        logging.getLogger("lib").info("last")
        return [], {}, ""

    async with house.worker(node.definition):
        await house.send(task())
        lines = await house.logs(4)
    assert [(line.level, line.message) for line in lines] == [
        ("INFO", "root 1"),
        ("WARNING", "from a thread"),
        ("ERROR", "went wrong"),
        ("INFO", "last"),
    ]
    assert lines[1].context == {"logger": "lib"}
    assert lines[2].exception.endswith("ZeroDivisionError: division by zero")
    assert all(line.run_id == "run-1" and line.node == "work" for line in lines)


async def _logged_by(house, lines: int, main) -> list[Log]:
    node = Node("work")
    node.register_main(main)
    async with house.worker(node.definition):
        await house.send(task())
        return await house.logs(lines)


SETTINGS = {
    "none": lambda: None,
    "basicConfig": lambda: logging.basicConfig(level="ERROR"),
    "force": lambda: logging.basicConfig(level="WARNING", force=True),
    "dictConfig": lambda: logging.config.dictConfig({"version": 1, "root": {"level": "ERROR", "handlers": []}}),
    "handlers cleared": logging.getLogger().handlers.clear,
    "level": lambda: logging.getLogger().setLevel("CRITICAL"),
}


@pytest.mark.parametrize("configure", SETTINGS.values(), ids=SETTINGS)
async def test_whatever_a_node_does_to_the_root_logger_its_run_gets_each_line_once(house, captured, configure):
    early = logging.getLogger("early")

    async def main():
        configure()
        logging.getLogger().info("of the root logger")
        early.info("of a logger that was there before")
        logging.getLogger("late").info("of a new one")
        apart = logging.getLogger("apart")
        apart.propagate = False
        apart.warning("of one that does not propagate")
        apart.info("last")
        return [], {}, ""

    lines = await _logged_by(house, 5, main)
    assert [(line.level, line.message) for line in lines] == [
        ("INFO", "of the root logger"),
        ("INFO", "of a logger that was there before"),
        ("INFO", "of a new one"),
        ("WARNING", "of one that does not propagate"),
        ("INFO", "last"),
    ]


async def test_what_a_node_says_of_a_named_logger_holds_for_its_run(house, captured):
    hidden = []

    async def main():
        logging.getLogger("quiet").setLevel("ERROR")
        logging.getLogger("quiet.child").warning("below its level")
        logging.getLogger("loud").setLevel("DEBUG")
        logging.getLogger("loud").debug("above its level")
        redacted = logging.getLogger("redacted")
        redacted.addFilter(lambda record: hidden.append(record.getMessage()))
        redacted.error("secret")
        logging.disable(logging.ERROR)
        logging.getLogger("loud").error("all is disabled")
        logging.getLogger("loud").critical("last")
        return [], {}, ""

    assert [line.message for line in await _logged_by(house, 2, main)] == ["above its level", "last"]
    assert hidden == ["secret"]


async def test_handlers_of_a_node_get_what_they_would_without_a_worker(house, captured):
    got: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            got.append(record.getMessage())

    async def main():
        logging.basicConfig(level="WARNING", handlers=[Keeping()], force=True)
        logging.getLogger().info("below the level")
        logging.getLogger().warning("above it")
        logging.getLogger().info("last")
        return [], {}, ""

    assert [line.message for line in await _logged_by(house, 3, main)] == ["below the level", "above it", "last"]
    assert got == ["above it"]


async def test_a_line_of_the_run_is_no_last_resort_as_well(house, captured, capsys):
    async def main():
        for handler in logging.getLogger().handlers[:]:
            logging.getLogger().removeHandler(handler)
        logging.warning("said once")  # noqa: LOG015 - which configures logging where nobody has
        logging.getLogger("lib").warning("said once")
        return [], {}, ""

    await _logged_by(house, 2, main)
    assert "said once" not in capsys.readouterr().err


async def test_arguments_that_cannot_be_formatted_cost_no_line(house, captured):
    async def main():
        logging.getLogger("lib").info("%d of %s", "one")  # noqa: PLE1206 - as it happens
        return [], {}, ""

    (line,) = await _logged_by(house, 1, main)
    assert line.message.startswith("%d of %s (its arguments cannot be formatted: TypeError: ")


async def test_hooks_of_models_log_to_the_run_as_well(house, captured):
    node = Node("work")

    class Inputs(BaseModel):
        a: int = 1

        @model_validator(mode="after")
        def check(self):
            logging.getLogger("inputs").info("validated")
            return self

    class Outputs(BaseModel):
        @model_serializer
        def dump(self):
            logging.getLogger("outputs").info("serialized")
            return {}

    @node.main
    async def main(given: Inputs):
        return [], Outputs(), ""

    async with house.worker(node.definition):
        await house.send(task())
        assert [line.message for line in await house.logs(2)] == ["validated", "serialized"]


async def test_a_tracing_library_that_replaces_call_handlers_gets_all(house, captured, monkeypatch):
    traced, original = [], logging.Logger.callHandlers

    def call_handlers(self, record):
        traced.append(record.getMessage())
        original(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", call_handlers)

    async def main():
        logging.getLogger().handlers.clear()
        logging.getLogger("lib").error("traced")
        return [], {}, ""

    assert [line.message for line in await _logged_by(house, 1, main)] == ["traced"]
    assert traced == ["traced"]


async def test_a_forked_child_logs_on_stderr(house, captured, capfd):
    async def main():
        if (child := os.fork()) == 0:
            logging.getLogger().info("in the child")
            os._exit(0)
        os.waitpid(child, 0)
        logging.getLogger().info("in the parent")
        return [], {}, ""

    assert [line.message for line in await _logged_by(house, 1, main)] == ["in the parent"]
    assert "INFO work: in the child" in capfd.readouterr().err


async def test_values_that_raise_when_they_are_read_cost_no_line(house):
    class Lazy:
        @property
        def __class__(self):
            raise RuntimeError

        __str__ = __repr__ = __bool__ = None

    node = Node("work")

    @node.main
    async def main():
        await Logger(node).log_with_context("INFO", "first", {"lazy": Lazy(), "several": [1, Lazy()]})
        await Logger(node).error(Lazy())
        return [], {}, "done"

    async with house.worker(node.definition):
        await house.send(task())
        lines = await house.logs(2)
        assert (await house.result()).message == "done"
    assert [(line.message, line.context) for line in lines] == [
        ("first", {"lazy": "(Lazy)", "several": [1, "(Lazy)"]}),
        ("(Lazy)", None),
    ]


async def test_a_logger_without_a_task_speaks_to_the_operator(caplog):
    with caplog.at_level(logging.INFO):
        await Logger(Node("lonely")).info("anybody?")
        await Logger(Node("lonely")).flush()
    assert caplog.record_tuples == [("nodes.lonely", logging.INFO, "anybody?")]

"""What authors and operators get wrong: said clearly, with the right exit code, and nothing is lost."""

from __future__ import annotations

import pytest

BAD_RETURNS = [
    ('Gather([1], then="x")', "Gather: sends[0] is 1; expected a node name or a Send"),
    ('Gather(["x y"], then="x")', "Gather: sends[0] is 'x y': expected a letter, then up to 62 letters"),
    ('Gather([Wait("a", then="b")], then="x")', "Gather: sends[0] is Wait(name='a'"),
    ('Gather([Gather([], then="x")], then="y")', "expected a node name or a Send"),
    ('Gather("x", then="y")', "Gather: sends is 'x': expected a list"),
    ('Gather(["x"])', "Gather: then is missing"),
    ('Gather(["x"], then=None)', "Gather: then is None; expected a node name or a Send"),
    ('Gather(["x"], then="y", max_concurrency=0)', "Gather: max_concurrency is 0: Input should be greater than or"),
    ('Gather(["x"], then="y", max_concurrency=2**31)', "Gather: max_concurrency is 2147483648: expected 2,147,483,647"),
    ('Gather(["x"], then="y", timeout=-1)', "Gather: timeout is -1: Input should be greater than 0"),
    ('Send("x", delay=-1)', "Send: delay is -1: Input should be greater than or equal to 0"),
    ('Send("x", delay=float("nan"))', "Send: delay is nan: Input should be a finite number"),
    ('Send("x", [1])', "Send: inputs is [1]: expected a dict"),
    ('Send("x", dealy=1)', "Send: dealy is 1: there is no such argument"),
    ('Send("")', "Send: node is '': expected a letter"),
    ('Send("x", {"a": {1}})', "nodes[0].inputs.a: set is no JSON type"),
    ('Wait("x")', "Wait: then is missing"),
    ('Wait("x", then="y", timeout=-1)', "Wait: timeout is -1: Input should be greater than 0"),
    ("1", "nodes[0] is a value of type int; expected a node name, Send, Gather or Wait"),
    ('Gather(["x"] * 10_001, then="y")', "a Gather of 10,001 sends is over the limit of 10,000 (max_gather)"),
    ('Gather([], then="nobody")', "node 'nobody': no file nobody.py"),
]

POLICIES = [
    ("stop=lambda state: 1 / 0", "then its retry policy raised ZeroDivisionError: division by zero"),
    ("wait=lambda state: 1 / 0", "then its retry policy raised ZeroDivisionError: division by zero"),
    ("retry=lambda state: 1 / 0", "then its retry policy raised ZeroDivisionError: division by zero"),
    ("wait=lambda state: -1", "wait said -1.0; expected seconds, a number from 0 on"),
    ("wait=lambda state: 'soon'", "then its retry policy raised ValueError"),
    ("wait=lambda state: None", "then its retry policy raised TypeError"),
    ("wait=lambda state: float('nan')", "wait said nan; expected seconds"),
    ("stop=lambda: True", "then its retry policy raised TypeError"),
]

ODD_IDS = ["", " ", "a b", "../../etc", "-r", "é", "a\nb", "x" * 101, "a/b", "a%00"]


def failed(flowkit, folder, said: str) -> None:
    """The one run that is kept has failed, for this reason."""
    (run,) = flowkit("runs", "list", "--json", "--store", f"sqlite:///{folder}/kept.db").json["runs"]
    assert run["status"] == "failed"
    assert said in run["error"]["message"]


@pytest.mark.parametrize(("item", "said"), BAD_RETURNS, ids=[item for item, _ in BAD_RETURNS])
def test_a_wrong_return_fails_the_run_and_says_what_is_wrong(flowkit, folder, item, said):
    (folder / "workers" / "wrong.py").write_text(
        "from flowkit import Gather, Node, Send, Wait\nnode = Node()\n"
        f"async def main():\n    return [{item}], {{}}, ''\nnode.register_main(main)\nnode.run()\n"
    )
    told = flowkit("run", "wrong", "--store", f"sqlite:///{folder}/kept.db")
    assert (told.code, told.out) == (1, "")
    assert said in told.err.splitlines()[-1]
    assert "errors.pydantic.dev" not in told.err.splitlines()[-1]
    failed(flowkit, folder, said)


@pytest.mark.parametrize(("option", "said"), POLICIES, ids=[option for option, _ in POLICIES])
def test_a_policy_that_makes_no_sense_fails_the_task_with_both_reasons(flowkit, folder, option, said):
    (folder / "workers" / "wrong.py").write_text(
        f"from flowkit import Node\nnode = Node('wrong', {option})\n"
        "@node.main\nasync def main():\n    raise OSError('the disk is on fire')\nnode.run()\n"
    )
    told = flowkit("run", "wrong", "--store", f"sqlite:///{folder}/kept.db")
    assert (told.code, told.out) == (1, "")
    assert "the disk is on fire; then its retry policy raised" in told.err
    failed(flowkit, folder, said)


@pytest.mark.parametrize("run_id", ODD_IDS)
def test_an_odd_run_id_is_refused_before_anything_is_asked(flowkit, run_id):
    nowhere = ("--broker", "amqp://127.0.0.1:1/")
    said = flowkit("start", "add", f"--id={run_id}", *nowhere)
    assert (said.code, "Traceback" in said.err) == (2, False), said.err
    assert "run id" in said.err


@pytest.mark.parametrize("delay", ["-5", "-5m", "nan", "inf", "soon", "1x", "", "9" * 400])
def test_a_delay_is_a_duration(flowkit, delay):
    said = flowkit("start", "add", f"--delay={delay}", "--broker", "amqp://127.0.0.1:1/")
    assert (said.code, "--delay" in said.err, "Traceback" in said.err) == (2, True, False), said.err


@pytest.mark.parametrize("since", ["-5m", "nan", "inf", "yesterday", "", "9" * 400])
def test_since_is_a_duration(flowkit, since):
    for words in (("runs", "list"), ("runs", "cancel"), ("logs",)):
        said = flowkit(*words, f"--since={since}")
        assert (said.code, "--since" in said.err, "Traceback" in said.err) == (2, True, False), (words, said.err)


@pytest.mark.parametrize("where", ["", "=", "node=", "parent=", "status=", "status=Failed", "nodes=add", "node"])
def test_where_names_what_runs_have(flowkit, where):
    said = flowkit("runs", "cancel", f"--where={where}")
    assert (said.code, "expected status=" in said.err) == (2, True), said.err


def test_two_values_of_one_thing_choose_no_run_at_all(flowkit):
    """The last one winning would cancel runs that somebody excluded."""
    said = flowkit("runs", "cancel", "--where", "node=add", "--where", "node=sub")
    assert (said.code, "no run has two values of node" in said.err) == (2, True), said.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("runs show {}", 2),
        ("runs list --tag a={}", 2),
        ("logs {}", 2),
        ("graph --run {}", 2),
        ("start add --tag a={} --broker memory:x", 2),
        ("start add --id {} --broker memory:x", 2),
        ("start add --broker amqp://u:{}@127.0.0.1:1/", 2),
        ("run {}", 2),
        ("run add -F a={}", 2),
        ("new {}", 2),
        ("config --namespace {}", 2),
        ("check --nodes {}", 2),
        ("check {}", 4),
        ("worker --node add --name {}", 2),
        ("schedule remove {}", 4),
        ("db status --store postgresql://u:{}@127.0.0.1:1/d", 2),
    ],
)
def test_bytes_that_are_no_text_are_one_line(flowkit, arguments, code):
    assert flowkit("db", "upgrade").code == 0
    said = flowkit(*(argument.format("\udcff") for argument in arguments.split()))
    assert (said.code, said.out) == (code, "")
    assert said.err.count("\n") == 1


def test_a_folder_of_nodes_has_no_nul(flowkit, folder):
    (folder / "flowkit.toml").write_text('nodes_dir = "a\\u0000b"\n')
    for verb in ("check", "new x", "run x"):
        said = flowkit(*verb.split())
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert "expected a path, which has no NUL" in said.err


def test_an_address_in_another_setting_is_masked(flowkit, monkeypatch):
    for name in ("NAMESPACE", "CONCURRENCY", "USERS"):
        monkeypatch.setenv(f"FLOWKIT_{name}", "a=amqp://u:k4n4ri@h/" if name == "USERS" else "amqp://u:k4n4ri@h/")
        said = flowkit("config")
        assert said.code == 2
        assert "k4n4ri" not in said.err
        monkeypatch.delenv(f"FLOWKIT_{name}")


def test_a_misspelt_variable_is_told_once_on_stderr(flowkit, monkeypatch):
    monkeypatch.setenv("FLOWKIT_NAMESAPCE", "x")
    for _ in range(2):
        said = flowkit("doctor" if _ else "config", "--json", "--broker", "memory:x")
        assert said.json["v"] == 1
        assert said.err == (
            "flowkit: warning: environment variable 'FLOWKIT_NAMESAPCE' is no setting, and is ignored; "
            "did you mean FLOWKIT_NAMESPACE?\n"
        )

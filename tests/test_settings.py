"""Where settings come from, and what is said of those that cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowkit.errors import UsageError
from flowkit.flow.limits import Limits
from flowkit.settings import Settings, mask, read, unknown_variables
from flowkit.wire.access import Login, Role


def test_defaults(tmp_path):
    settings = read(environ={}, directory=tmp_path)
    assert settings == Settings()
    assert settings.limits == Limits()
    assert {settings.origin(name) for name in Settings.model_fields} == {"default"}


def test_flags_come_before_the_environment_and_that_before_the_file(tmp_path):
    (tmp_path / "flowkit.toml").write_text('namespace = "file"\nconcurrency = 3\nmax_tasks = 7\n')
    environ = {"FLOWKIT_CONCURRENCY": "4", "FLOWKIT_NAMESPACE": "env"}
    settings = read({"namespace": "flag", "concurrency": None}, environ=environ, directory=tmp_path)
    assert (settings.namespace, settings.concurrency, settings.limits.max_tasks) == ("flag", 4, 7)
    assert settings.origin("namespace") == "flag --namespace"
    assert settings.origin("concurrency") == "environment FLOWKIT_CONCURRENCY"
    assert settings.origin("max_tasks") == "flowkit.toml"
    assert settings.origin("store_url") == "default"


def test_pyproject_counts_where_there_is_no_file_of_its_own(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.flowkit]\nnodes_dir = "jobs"\n[tool.other]\nx = 1\n')
    settings = read(environ={}, directory=tmp_path)
    assert settings.nodes_dir == Path("jobs")
    assert settings.origin("nodes_dir") == "[tool.flowkit] in pyproject.toml"
    (tmp_path / "flowkit.toml").write_text("")
    assert read(environ={}, directory=tmp_path).nodes_dir == Path("workers")


def test_an_empty_variable_is_an_unset_one(tmp_path):
    assert read(environ={"FLOWKIT_NAMESPACE": ""}, directory=tmp_path).namespace == "flowkit"


@pytest.mark.parametrize(
    ("file", "environ", "says"),
    [
        ("concurency = 3", {}, r"flowkit.toml: unknown setting 'concurency'; did you mean 'concurrency'\?"),
        ("zzzzzz = 3", {}, r"unknown setting 'zzzzzz'; 'flowkit config' lists them all"),
        ("x = ", {}, r"flowkit.toml cannot be read: "),
        ("concurrency = " + "9" * 5_000, {}, r"flowkit.toml cannot be read: "),
        ("x = " + "[" * 5_000, {}, r"flowkit.toml cannot be read: "),
        ("concurrency = 2147483648", {}, r"setting concurrency = '2147483648' .*: input should be less than or equal"),
        ("drain_timeout = inf", {}, r"setting drain_timeout = 'inf' .*: input should be "),
        (
            "concurrency = 0",
            {},
            r"setting concurrency = '0' \(flowkit.toml\): input should be greater than or equal to 1",
        ),
        (
            "",
            {"FLOWKIT_CONCURRENCY": "many"},
            r"concurrency = 'many' \(environment FLOWKIT_CONCURRENCY\): .*valid integer",
        ),
        (
            "",
            {"FLOWKIT_NAMESPACE": "a.b"},
            r"namespace = 'a.b' \(environment FLOWKIT_NAMESPACE\): expected a word without",
        ),
        ("", {"FLOWKIT_LOG_LEVEL": "LOUD"}, r"log_level = 'LOUD'"),
        ("", {"FLOWKIT_BROKER_PASSWORD_FILE": "/nowhere"}, r"FLOWKIT_BROKER_PASSWORD_FILE: /nowhere cannot be read"),
        ("", {"FLOWKIT_STORE_PASSWORD_FILE": __file__}, r"sqlite:///.flowkit/flowkit.db names no user"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_with_its_origin(tmp_path, file, environ, says):
    (tmp_path / "flowkit.toml").write_text(file)
    with pytest.raises(UsageError) as error:
        read(environ=environ, directory=tmp_path)
    assert re.search(says, str(error.value))
    assert "\n" not in str(error.value).rstrip()


def test_a_password_from_a_file_goes_into_the_address_and_nowhere_else(tmp_path):
    (tmp_path / "secret").write_text("p@ss/w:rd?\n")
    settings = read(
        environ={
            "FLOWKIT_BROKER_URL": "amqps://worker@rabbit:5671/prod",
            "FLOWKIT_BROKER_PASSWORD_FILE": str(tmp_path / "secret"),
        },
        directory=tmp_path,
    )
    assert settings.broker_url == "amqps://worker:p%40ss%2Fw%3Ard%3F@rabbit:5671/prod"
    assert settings.origin("broker_url") == f"environment FLOWKIT_BROKER_URL, password from {tmp_path / 'secret'}"
    assert mask(settings.broker_url) == "amqps://worker:***@rabbit:5671/prod"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:canary@h/", "amqp://u:***@h/"),
        ("amqp://u:can@ary@h/", "amqp://u:***@h/"),
        ("postgresql://u:can/ary@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u@h/db?password=canary&sslmode=require", "postgresql://u@h/db?password=***&sslmode=require"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_passwords_are_masked(url, shown):
    assert mask(url) == shown


def test_logins_come_from_a_table_or_from_one_variable(tmp_path):
    (tmp_path / "flowkit.toml").write_text('[users]\npictures = "worker: resize, store"\nfront = "starter"\n')
    wanted = (Login("pictures", Role.WORKER, ("resize", "store")), Login("front", Role.STARTER))
    assert read(environ={}, directory=tmp_path).logins == wanted
    environ = {"FLOWKIT_USERS": " pictures = worker:resize,store; front=starter;"}
    assert read(environ=environ, directory=tmp_path / "elsewhere").logins == wanted


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("pictures", "expected LOGIN=ROLE;LOGIN=ROLE"),
        ("pictures=boss", "login 'pictures' = 'boss': expected one of admin"),
        ("pictures=worker:a b c,1", "'1' is no name of a node"),
    ],
)
def test_what_is_no_login_is_said(tmp_path, said, why):
    with pytest.raises(UsageError, match=re.escape(why)):
        read(environ={"FLOWKIT_USERS": said}, directory=tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLOWKIT_BROKER_ULR", "FLOWKIT_BROKER_URL"),
        ("FLOWKIT_BROKERURL", "FLOWKIT_BROKER_URL"),
        ("FLOWKIT_CONCURENCY", "FLOWKIT_CONCURRENCY"),
        ("FLOWKIT_BROKER_PASSWORD", "FLOWKIT_BROKER_PASSWORD_FILE"),
        ("FLOWKT_STORE_URL", "FLOWKIT_STORE_URL"),
        ("flowkit_log_level", "FLOWKIT_LOG_LEVEL"),
    ],
)
def test_a_misspelt_variable_is_told_with_what_was_meant(name, meant):
    (warning,) = unknown_variables({name: "s3cret", "HOME": "/"})
    assert warning == f"environment variable {name!r} is no setting, and is ignored; did you mean {meant}?"


def test_a_variable_like_no_setting_is_told_too():
    (warning,) = unknown_variables({"FLOWKIT_A\nB": "x"})
    assert (
        warning
        == r"environment variable 'FLOWKIT_A\nB' is no setting, and is ignored; 'flowkit config' lists the settings"
    )


@pytest.mark.parametrize(
    "name",
    [
        *(f"FLOWKIT_{name.upper()}" for name in Settings.model_fields),
        "FLOWKIT_BROKER_PASSWORD_FILE",
        "FLOWKIT_TEST_AMQP_URL",
        "FLOWKIT_SERVICE_HOST",  # these four by Kubernetes, for services called flowkit and flowkit-broker
        "FLOWKIT_PORT",
        "FLOWKIT_BROKER_SERVICE_PORT_AMQP",
        "FLOWKIT_BROKER_PORT_5672_TCP_ADDR",
        "FLORIDA",
    ],
)
def test_other_variables_are_nobodys_mistake(name):
    assert unknown_variables({name: "x"}) == []
    assert unknown_variables({"FLOWKIT_BROKER_ULR": ""}) == []

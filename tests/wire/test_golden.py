"""The contract as bytes: every file in golden/ is a message as it travels. They may be added to, never changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from flowkit.wire.messages import (
    Command,
    Control,
    Log,
    Message,
    Result,
    RunEnded,
    Start,
    Task,
    Worker,
    decode,
    decode_many,
    encode_many,
)  # fmt: skip

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = sorted((HERE / "golden").glob("*.json"))
MODELS: dict[str, type[Message]] = {
    model.TYPE.removeprefix("flowkit."): model
    for model in (Start, Task, Result, Log, Command, Worker, Control, RunEnded)
}


def kind(path: Path) -> str:
    return path.stem.partition("-")[0]


def schema(name: str) -> Draft202012Validator:
    found = json.loads((ROOT / "docs/reference/schemas" / f"{name}.json").read_text())
    validator = validator_for(found)
    validator.check_schema(found)
    return validator(found)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_message_comes_back_as_it_was(path: Path) -> None:
    model = MODELS[kind(path)]
    assert json.loads(decode(model, path.read_bytes()).encode()) == json.loads(path.read_text())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_schema_accepts_it(path: Path) -> None:
    schema(kind(path)).validate(json.loads(path.read_text()))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_fields_of_newer_versions_are_ignored(path: Path) -> None:
    value = json.loads(path.read_text())
    newer = _with_unknown_fields(value)
    model = MODELS[kind(path)]
    assert decode(model, json.dumps(newer).encode()) == decode(model, path.read_bytes())
    schema(kind(path)).validate(newer)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_missing_version_means_one(path: Path) -> None:
    value = json.loads(path.read_text())
    del value["v"]
    message = decode(MODELS[kind(path)], json.dumps(value).encode())
    assert message.v == 1
    assert json.loads(message.encode())["v"] == 1


def test_every_kind_of_message_has_a_golden_file() -> None:
    assert {kind(path) for path in GOLDEN} == set(MODELS)


@pytest.mark.parametrize("name", ["result", "log"])
def test_one_message_or_an_array_of_them(name: str) -> None:
    model = MODELS[name]
    one = (HERE / "golden" / f"{name}.json").read_bytes()
    assert decode_many(model, one) == [decode(model, one)]
    several = decode_many(model, b"[" + one + b"," + one + b"]")
    assert several == [decode(model, one)] * 2
    assert decode_many(model, encode_many(several)) == several
    assert decode_many(model, b"[]") == []
    assert json.loads(encode_many(several[:1])) == json.loads(one)  # one message travels as an object


def _with_unknown_fields(value: dict) -> dict:
    """Unknown fields at the top and inside the parts that the contract describes."""
    newer = {**value, "from_the_future": {"x": [1]}}
    for part in ("error", "finished"):
        if isinstance(newer.get(part), dict):
            newer[part] = {**newer[part], "from_the_future": 1}
    if isinstance(newer.get("nodes"), list):
        newer["nodes"] = [_newer_item(item) for item in newer["nodes"]]
    return newer


def _newer_item(item: object) -> object:
    if not isinstance(item, dict):
        return item
    inner = {
        key: {**content, "from_the_future": 1} if key in ("send", "gather", "wait") else content
        for key, content in item.items()
    }
    return {**inner, "from_the_future": 1}

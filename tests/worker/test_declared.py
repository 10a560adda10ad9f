"""What the annotation of main declares, and that what it declares of outputs is what travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Callable, List, Literal, Never, NotRequired, Required, TypedDict, Union  # noqa: UP035

import pytest
import typing_extensions
from jsonschema import Draft202012Validator
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    OnErrorOmit,
    RootModel,
    SerializeAsAny,
    computed_field,
    field_serializer,
    model_serializer,
    model_validator,
)

from flowkit import Gather, Node, Send, Wait
from flowkit.errors import InvalidNode
from flowkit.flow.edges.fits import SURE, clash
from flowkit.flow.edges.schema import MORE
from flowkit.wire.messages import Status
from flowkit.worker import schemas
from flowkit.worker.announce import describe_node, describe_nodes
from flowkit.worker.declared import Declared
from flowkit.worker.execute import execute
from flowkit.worker.schemas import schemas_of

from .tasks import Lines, define, task


class Out(BaseModel):
    path: str


class Other(BaseModel):
    size: int


class Table(TypedDict):
    path: str


class Where(StrEnum):
    STORE = "store"
    REPORT = "report"


Alias = tuple[list[Literal["a"]], Out, str]
New = typing_extensions.TypeAliasType("New", Alias)
Names = typing_extensions.TypeAliasType("Names", list[Literal["a", "b"]])

# annotation, next of Node -> next, plain, others
FOLLOWING = [
    ("None at all", ..., None, (None, (), False)),
    ("names", tuple[list[Literal["a", "b"]], Out, str], None, (("a", "b"), ("a", "b"), False)),
    ("an alias", Alias, None, (("a",), ("a",), False)),
    ("a new alias", New, None, (("a",), ("a",), False)),
    ("an alias inside", tuple[Names, Out, str], None, (("a", "b"), ("a", "b"), False)),
    ("annotated", Annotated[tuple[list[Annotated[Literal["a"], 1]], Out, str], 2], None, (("a",), ("a",), False)),
    ("an enum", tuple[list[Where], Out, str], None, (("store", "report"), ("store", "report"), False)),
    ("any text", tuple[list[str], Out, str], None, (None, (), False)),
    ("any list", tuple[list, Out, str], None, (None, (), False)),
    ("any list of typing", tuple[List, Out, str], None, (None, (), False)),  # noqa: UP006
    ("a Gather", tuple[list[Gather], Out, str], None, (None, (), False)),
    ("a Gather or a name", tuple[list[Literal["a"] | Gather], Out, str], None, (("a",), ("a",), True)),
    ("a Gather with names", tuple[list[Gather | Send], Out, str], ("b", "a"), (("b", "a"), (), False)),
    ("both", tuple[list[Literal["a"] | Wait], Out, str], ["b", "a"], (("a", "b"), ("a",), False)),
    ("nothing follows", tuple[list[Never], Out, str], None, ((), (), False)),
    ("an empty tuple", tuple[tuple[()], Out, str], None, ((), (), False)),
    ("a tuple", tuple[tuple[Literal["a"], Literal["b"]], Out, str], None, (("a", "b"), ("a", "b"), False)),
    ("many in a tuple", tuple[tuple[Literal["a"], ...], Out, str], None, (("a",), ("a",), False)),
    ("a sequence", tuple[Sequence[Literal["a"]], Out, str], None, (("a",), ("a",), False)),
    ("either list", tuple[list[Literal["a"]] | list[Never], Out, str], None, (("a",), ("a",), False)),
    (
        "one way or the other",
        tuple[list[Literal["a"]], Out, str] | tuple[list[Never], Other, str],
        None,
        (("a",), ("a",), False),
    ),
    ("never returns", Never, None, ((), (), False)),
    ("only next", ..., ("b", "a"), (("b", "a"), (), False)),
    ("nothing by next", ..., (), ((), (), False)),
    ("any tuple", tuple, None, (None, (), False)),
    ("anything", Any, None, (None, (), False)),
]

# annotation of the outputs -> the properties of their schema; None: not declared
OUTPUTS = [
    (Out, {"path"}),
    (Table, {"path"}),
    (New, None),
    (dict, None),
    (dict[str, Any], None),
    (Mapping[str, Any], None),
    (Any, None),
    (Out | Any, None),
    (Annotated[Out, "x"], {"path"}),
]

WRONG = [
    (int, "main is annotated to return int; expected tuple[list[…], outputs, str]"),
    (None, "main is annotated to return None; expected tuple"),
    (tuple[list[str], Out], "main is annotated to return tuple[list[str], "),
    (tuple[str, ...], "main is annotated to return tuple[str, ...]"),
    (list[str], "main is annotated to return list[str]"),
    (
        tuple[list[str], int, str],
        "main is annotated to return int as outputs; expected a pydantic model, a TypedDict or a dict",
    ),
    (tuple[list[str], None, str], "main is annotated to return None as outputs"),
    (tuple[list[str], list[int], str], "main is annotated to return list[int] as outputs"),
]


def returning(annotation: Any, value: Any = None) -> Callable[..., Any]:
    async def main():
        return value

    if annotation is not ...:
        main.__annotations__["return"] = annotation
    return main


def outputs_of(kind: Any) -> tuple[dict[str, Any] | None, list[str]]:
    found, problems = schemas_of(define(returning(tuple[list[Never], kind, str])))
    return found.get("outputs"), problems


@pytest.mark.parametrize(
    ("annotation", "following", "says"), [row[1:] for row in FOLLOWING], ids=[r[0] for r in FOLLOWING]
)
def test_what_may_follow(annotation, following, says):
    found = define(returning(annotation), next=following).declared
    assert (found.next, found.plain, found.others, found.problem) == (*says, "")


@pytest.mark.parametrize(("kind", "properties"), OUTPUTS, ids=str)
def test_what_is_known_of_outputs(kind, properties):
    schema, problems = outputs_of(kind)
    if kind is not New:  # an alias of three parts is no outputs
        assert problems == []
    assert (None if schema is None else set(schema["properties"])) == properties


@pytest.mark.parametrize(("annotation", "says"), WRONG, ids=[says for _, says in WRONG])
def test_an_annotation_that_makes_no_sense_stops_no_worker(annotation, says):
    definition = define(returning(annotation))
    assert says in definition.declared.problem
    assert describe_node(definition).schemas is None
    assert schemas_of(definition)[1] == [definition.declared.problem]


def test_annotations_that_are_text_are_read_too():
    async def main(out: Out) -> tuple[list[Literal["a"]], Other, str]:
        return ["a"], Other(size=1), ""

    assert isinstance(main.__annotations__["return"], str), "of this file all are"
    assert define(main).declared == Declared(outputs=Union[Other], next=("a",), plain=("a",))  # noqa: UP007


@pytest.mark.parametrize("name", ["a b", "", "../x", 3])
def test_a_name_that_cannot_be_one_is_said_when_it_is_loaded(name):
    with pytest.raises(InvalidNode, match="node 'work': the annotation of main names"):
        define(returning(tuple[list[Literal[name]], Out, str]))
    with pytest.raises(InvalidNode, match="node 'work': next has"):
        Node("work", next=(name,))


@pytest.mark.parametrize("following", ["store", 3, b"x"[0]])
def test_next_is_a_list_of_names(following):
    with pytest.raises(InvalidNode, match=r"next=.*; expected names of nodes in a tuple: next=\('work',\)"):
        Node("work", next=following)


# Schemas


class Odd:
    pass


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    odd: Odd
    either: int | Odd = 3
    call: Callable[[], int] | None = None
    path: str


def test_of_what_json_does_not_have_nothing_is_known_and_the_rest_is():
    async def main(given: Arbitrary):
        return [], {}, ""

    schema = describe_node(define(main)).schemas["inputs"]
    assert schema["properties"]["odd"] == {"title": "Odd"}
    assert schema["properties"]["path"]["type"] == "string"
    assert {} in schema["properties"]["either"]["anyOf"]


def test_a_hook_of_the_author_that_raises_stops_no_worker():
    class Broken(BaseModel):
        @classmethod
        def __get_pydantic_json_schema__(cls, core, handler):
            raise ZeroDivisionError("in a hook\nand more")

    async def main(given):
        return [], {}, ""

    main.__annotations__["given"] = Broken
    definition = define(main)
    assert describe_node(definition).schemas is None
    assert schemas_of(definition)[1] == ["no schema of its inputs: ZeroDivisionError: in a hook"]


def test_what_is_announced_is_bounded(monkeypatch, caplog):
    huge = type("Huge", (BaseModel,), {"__annotations__": {f"field_{number}": str for number in range(2_000)}})

    async def main(given):
        return [], {}, ""

    main.__annotations__["given"] = huge
    definition = define(main)
    assert describe_node(definition).schemas is None
    assert "over the 65,536 that are announced" in schemas_of(definition)[1][0]

    async def small(out: Out):
        return [], {}, ""

    monkeypatch.setattr("flowkit.worker.announce.MAX_WORKER", 150)
    first, second, third = describe_nodes([define(small, "a"), define(small, "b"), define(returning(...), "c")])
    assert (first.schemas is None, second.schemas, third.schemas) == (False, None, None)
    assert "node b: schemas left out" in caplog.text


class Half(TypedDict, total=False):
    always: Required[list[Table]]
    perhaps: Table | None


class Whole(Half):
    there: str
    gone: NotRequired[Annotated[int, Field(ge=1)]]


def test_typed_dicts_of_typing_whatever_the_python():
    schema, problems = outputs_of(Whole)
    assert problems == []
    assert sorted(schema["required"]) == ["always", "there"]
    assert schema["properties"]["gone"]["minimum"] == 1
    assert schema["additionalProperties"] is False
    Draft202012Validator(schema).validate({"always": [{"path": "x"}], "there": "", "perhaps": None})


class Lenient(BaseModel):
    words: Annotated[list[str], BeforeValidator(lambda text: text.split() if isinstance(text, str) else text)]


class Renamed(BaseModel):
    path: str = Field(validation_alias=AliasChoices("path", "file"))


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    path: str = Field(alias="file")


class Built(BaseModel):
    path: str

    @model_validator(mode="before")
    @classmethod
    def build(cls, data: Any) -> Any:
        return {"path": data["p"]} if "p" in data else data


class Texts(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    path: str


class Loose(StrEnum):
    STORE = "store"

    @classmethod
    def _missing_(cls, value):
        return cls.STORE


class Loosely(BaseModel):
    kind: Loose
    kept: list[OnErrorOmit[int]]


class Told(BaseModel):
    words: Annotated[list[str], BeforeValidator(str.split, json_schema_input_type=str)]


def exactly(value: Any) -> dict[str, Any]:
    if not isinstance(value, list):
        return {"const": value}
    return {"type": "array", "prefixItems": list(map(exactly, value)), "minItems": len(value), "maxItems": len(value)}


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (Lenient, {"words": "a b"}),
        (Renamed, {"file": "x"}),
        (ByName, {"path": "x"}),
        (Built, {"p": "x"}),
        (Texts, {"path": 3}),
        (Told, {"words": "a b"}),
        (Loosely, {"kind": "odd", "kept": [[], 1]}),
    ],
)
def test_what_a_model_takes_is_never_called_impossible(model, value):
    model.model_validate_json(json.dumps(value))
    sent = {"type": "object", "properties": {name: exactly(inner) for name, inner in value.items()}}
    sent |= {"required": list(value), "additionalProperties": False}
    assert clash(sent, schemas.schema_of(model, "validation"), SURE) is None


def test_a_model_that_takes_just_what_it_says_is_not_marked():
    assert MORE not in json.dumps(schemas.schema_of(Out, "validation"))
    assert MORE not in json.dumps(schemas.schema_of(Told, "validation"))


# What travels is what was declared


class Every(BaseModel):
    day: date
    price: Decimal
    where: Path = Path("x")
    kind: Where = Where.STORE
    inner: list[Out] = []
    odd: SerializeAsAny[BaseModel] = Other(size=1)
    renamed: str = Field("", serialization_alias="for")
    hidden: str = Field("", exclude=True)

    @computed_field
    @property
    def sum(self) -> int:
        return 3

    @field_serializer("where")
    def untold(self, value):
        return {"parts": value.parts}


class Floating(BaseModel):
    a: float


class Itself(BaseModel):
    size: int

    @model_serializer
    def whole(self) -> dict[str, int]:
        return {"twice": self.size * 2}


class Free(BaseModel):
    model_config = ConfigDict(extra="allow")

    a: int


VALUES = [
    Every(day=date(2026, 1, 31), price=Decimal("1.50"), inner=[Out(path="x")]),
    Itself(size=2),
    Free(a=1, b="more"),
    RootModel[dict[str, int]]({"a": 1}),
]


async def outputs(value: Any, annotation: Any = ...) -> Any:
    main = returning(annotation, ([], value, "done"))
    report = await execute(task(), define(main), sink=Lines(), worker="w")
    return report.result


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_a_model_as_outputs_travels_as_its_schema_says(value):
    result = await outputs(value)
    assert result.status is Status.SUCCEEDED, result.message
    Draft202012Validator(schemas.schema_of(type(value), "serialization")).validate(result.outputs)


async def test_names_and_hidden_fields():
    result = await outputs(VALUES[0])
    assert (result.outputs["for"], result.outputs["sum"], "hidden" in result.outputs) == ("", 3, False)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (RootModel[list[int]]([1]), "outputs is a value of type list; expected a dict or a pydantic model"),
        (Floating(a=float("nan")), "outputs.a: nan is no JSON number"),
        (Free(a=2**70), "outputs.a: an integer over 64 bits"),
        (Out, "outputs is a value of type ModelMetaclass"),
        ({"out": Out(path="x")}, "outputs.out: Out is no JSON type"),
    ],
    ids=str,
)
async def test_outputs_that_cannot_travel_fail_the_task(value, says):
    result = await outputs(value)
    assert (result.status, says in result.message) == (Status.FAILED, True), result.message


async def test_a_serializer_that_raises_fails_the_task():
    class Broken(BaseModel):
        a: int = 1

        @field_serializer("a")
        def boom(self, value):
            raise ZeroDivisionError("in a serializer")

    result = await outputs(Broken())
    assert (result.status, "in a serializer" in result.message) == (Status.FAILED, True)


async def test_a_dict_is_not_held_against_the_annotation():
    """It is what the author's type checker is for."""
    result = await outputs({"something": "else"}, tuple[list[Never], Out, str])
    assert (result.status, result.outputs) == (Status.SUCCEEDED, {"something": "else"})

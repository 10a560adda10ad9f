"""JSON Schemas of what a node takes and returns, true to what pydantic does with the values."""

from __future__ import annotations

import sys
from enum import Enum
from types import UnionType
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import typing_extensions
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from flowkit.errors import FlowKitError
from flowkit.flow.edges.schema import MORE
from flowkit.wire import codec
from flowkit.wire.messages import Object
from flowkit.worker.declared import is_typed_dict
from flowkit.worker.definition import Definition
from flowkit.worker.failure import message_of

MAX_NODE = 64 * 1024  # bytes of one schema: a model of 300 fields has 30 KiB
MAX_WORKER = 256 * 1024  # of all that a process announces: it does so every 5 s


class Unknown(FlowKitError):
    """No schema can be made; the message says why."""


def schemas_of(definition: Definition) -> tuple[Object, list[str]]:
    """What is known of the inputs and outputs of a node.

    Returns:
        schemas under ``inputs`` and ``outputs``, where they are known; and in a line each what could not be understood
        though it seems to be meant to.
    """
    said: dict[str, tuple[Any, JsonSchemaMode]] = {
        "inputs": (definition.model, "validation"),
        "outputs": (definition.declared.outputs, "serialization"),
    }
    found, problems = {}, [definition.declared.problem] if definition.declared.problem else []
    for name, (kind, mode) in said.items():
        if kind is None:
            continue
        try:
            found[name] = schema_of(kind, mode)
        except Unknown as error:
            problems.append(f"no schema of its {name}: {error}")
    return found, problems


def schema_of(kind: Any, mode: JsonSchemaMode) -> Object:
    """The JSON Schema of a type.

    Raises:
        Unknown: pydantic cannot make one, or it is too large to be announced.
    """
    try:
        schema = TypeAdapter(_readable(kind)).json_schema(mode=mode, schema_generator=_Schema)
        size = len(codec.encode_object(schema, "schema"))
    except Exception as error:  # noqa: BLE001 - the author's code, in the hooks that pydantic has for it
        raise Unknown(f"{type(error).__name__}: {message_of(error)}".partition("\n")[0]) from None
    if size > MAX_NODE:
        raise Unknown(f"it has {size:,} bytes, over the {MAX_NODE:,} that are announced")
    return schema


class _Schema(GenerateJsonSchema):
    """Pydantic's own, where that says less than what it takes, or more than what it writes."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as it is declared there

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:  # noqa: ARG002 - theirs
        """Types that JSON does not have: anything, so that the rest is known."""
        return {}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """A validator before pydantic's own may make something of other values too."""
        return self._more(super().function_before_schema(schema), schema)

    def function_wrap_schema(self, schema: core_schema.WrapValidatorFunctionSchema) -> JsonSchemaValue:
        """So may one around it."""
        return self._more(super().function_wrap_schema(schema), schema)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """An enum that looks for what is missing may find it."""
        made = super().enum_schema(schema)
        looks = any("_missing_" in vars(kind) for kind in schema["cls"].__mro__ if kind is not Enum)
        return made | {MORE: True} if looks else made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Where a default stands in for what does not fit, everything fits."""
        made = super().default_schema(schema)
        return made | {MORE: True} if schema.get("on_error", "raise") != "raise" else made

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """A model writes its fields and no others; it may take some of them by several names."""
        made = super().model_schema(schema)
        model = schema["cls"]
        if self.mode == "serialization":
            return made if schema.get("root_model") else {"additionalProperties": False} | made
        aliased = [field.validation_alias for field in model.model_fields.values() if field.validation_alias]
        by_name = any(map(model.model_config.get, ("populate_by_name", "validate_by_name", "coerce_numbers_to_str")))
        return made | {MORE: True} if by_name or not all(isinstance(name, str) for name in aliased) else made

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        """What is declared is all that there is."""
        made = super().typed_dict_schema(schema)
        return {"additionalProperties": False} | made if self.mode == "serialization" else made

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        """A serializer of the author's that does not say what it returns may return anything; so may duck typing."""
        untold = schema["type"].startswith("function") and schema.get("return_schema") is None
        untold |= schema["type"] == "any"
        return {} if untold else super().ser_schema(schema)

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: FBT001 - as it is declared there
        """A model writes fields that have their default too."""
        if self.mode == "serialization" and field["type"] == "model-field":
            return field.get("serialization_exclude_if") is None
        return super().field_is_required(field, total)

    def _more(self, made: JsonSchemaValue, schema: Any) -> JsonSchemaValue:
        told = self.mode == "serialization" or schema.get("json_schema_input_schema") is not None
        return made if told else made | {MORE: True}


def _readable(kind: Any) -> Any:
    """The same type with TypedDicts that pydantic can read: before Python 3.12 those of typing_extensions only."""
    if sys.version_info >= (3, 12) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return kind
    if is_typed_dict(kind) and type(kind).__module__ == "typing":
        return _typed_dict(kind)
    parts = get_args(kind)
    readable = tuple(map(_readable, parts))
    if readable == parts or get_origin(kind) is Annotated:
        return kind
    if get_origin(kind) in (Union, UnionType):
        return Union[readable]  # noqa: UP007 - of as many as there are
    return get_origin(kind)[readable]


def _typed_dict(kind: Any) -> Any:
    fields = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        # Without the annotations being evaluated, the class does not know of Required and NotRequired.
        marked = get_origin(hint) in (Required, NotRequired)
        there: Any = get_origin(hint) if marked else Required if name in kind.__required_keys__ else NotRequired
        fields[name] = there[_readable(get_args(hint)[0] if marked else hint)]
    return typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[operator]

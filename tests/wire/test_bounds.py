"""The bounds of the contract are said once, and nothing on the wire is without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkit.wire import bounds

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
BOUNDED = {"maxLength", "pattern", "format", "enum", "const"}


def unbounded(part: Any, place: str) -> Iterator[str]:
    """Places of texts, whole numbers and lists that may be as large as they like."""
    if isinstance(part, list):
        for number, inner in enumerate(part):
            yield from unbounded(inner, f"{place}[{number}]")
    if not isinstance(part, dict):
        return
    kind = part.get("type")
    if kind == "string" and not BOUNDED & part.keys():
        yield place
    if kind == "integer" and not place.endswith(".v") and not {"minimum", "maximum"} <= part.keys():
        yield place
    if kind == "number" and not ("maximum" in part and {"minimum", "exclusiveMinimum"} & part.keys()):
        yield place
    if kind == "array" and "maxItems" not in part:
        yield place
    if isinstance(part.get("additionalProperties"), dict) and "maxProperties" not in part:
        yield place
    for key, inner in part.items():
        if key not in ("description", "title", "default", "propertyNames"):
            yield from unbounded(inner, f"{place}.{key}")


@pytest.mark.parametrize("path", sorted((REFERENCE / "schemas").glob("*.json")), ids=lambda path: path.stem)
def test_each_field_of_each_message_has_a_bound(path: Path) -> None:
    assert list(unbounded(json.loads(path.read_text()), path.stem)) == []


def test_the_reference_says_the_same_numbers() -> None:
    page = (REFERENCE / "wire.md").read_text()
    for row in (
        f"| name of a worker (`worker`) | {bounds.WORKER} characters",
        f"| name of a signal, name of a `key`, `fingerprint` | {bounds.SIGNAL} characters |",
        f"| tags | {bounds.TAGS}, a key of {bounds.TAG_KEY} and a value of {bounds.TAG_VALUE:,} characters |",
        f"`traceback`, `exception` | {bounds.TEXT:,} characters |",
        f"| `type` of an error, `version`, `host`, a name in `next` and `plain` | {bounds.ERROR_TYPE} characters |",
        f"| `level` | {bounds.LEVEL} characters |",
        f"| an array of results or log lines | {bounds.PARTS:,} messages |",
        f"`plain` | {bounds.ENTRIES:,} entries |",
        f"| 1 to {bounds.INT32:,} |",
    ):
        assert row in page
    assert bounds.SIGNAL == bounds.KEY == bounds.FINGERPRINT
    assert bounds.ERROR_TYPE == bounds.VERSION == bounds.NEXT == bounds.HOST

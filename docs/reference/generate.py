"""Write docs/reference/schemas/: the JSON Schema of every message, from the models in flowkit.wire.messages.

python docs/reference/generate.py, or `make docs`. A test compares the committed files with what this makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowkit.wire.messages import Command, Control, Log, Message, Result, RunEnded, Start, Task, Worker

FOLDER = Path(__file__).with_name("schemas")
MESSAGES: tuple[type[Message], ...] = (Start, Task, Result, Log, Command, Worker, Control, RunEnded)


def schemas() -> dict[str, str]:
    """File name -> contents, such as ``start.json``."""
    return {f"{model.TYPE.removeprefix('flowkit.')}.json": _text(model) for model in MESSAGES}


def _text(model: type[Message]) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{model.TYPE.replace('.', ':')}:1",
        **_as_on_the_wire(model.model_json_schema()),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _as_on_the_wire(part: Any) -> Any:
    """Without what holds in Python only: a misspelt keyword is an error there, an unknown field is ignored here."""
    if isinstance(part, list):
        return [_as_on_the_wire(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    kept = {key: value for key, value in part.items() if (key, value) != ("additionalProperties", False)}
    if isinstance(kept.get("description"), str):
        kept["description"] = kept["description"].partition("\n\nArgs:")[0]
    return {key: _as_on_the_wire(value) for key, value in kept.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text)
        print(f"wrote docs/reference/schemas/{name}")

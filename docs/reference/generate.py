"""Write what stands in docs/reference/ and follows from the code: schemas/, settings.md and cli.md.

python docs/reference/generate.py, or `make docs`. A test compares the committed files with what this makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowkit.settings import FLAGS, PASSWORD_FILES, Settings
from flowkit.wire.messages import Command, Control, Log, Message, Result, RunEnded, Start, Task, Worker

FOLDER = Path(__file__).parent
MESSAGES: tuple[type[Message], ...] = (Start, Task, Result, Log, Command, Worker, Control, RunEnded)

SETTINGS = """\
# Settings

<!-- written by `make docs` from flowkit/settings.py -->

Flags win over the environment, that over `flowkit.toml` (or `[tool.flowkit]` in `pyproject.toml`), that over the
defaults. `flowkit config` prints each value with where it came from, passwords masked. `flowkit run` ignores the
addresses of broker and store: it has its own.

| setting | environment | flag | default | meaning |
| --- | --- | --- | --- | --- |
{rows}

A variable that begins with `FLOWKIT_` and is no setting is a warning on stderr, with the name that was probably meant;
such a key in a file is an error. `FLOWKIT_TEST_*`, and what Kubernetes sets for services of such names, are left alone.

No password has to stand in an address:

{files}
"""


def pages() -> dict[str, str]:
    """Path below docs/reference -> contents."""
    schemas = {f"schemas/{model.TYPE.removeprefix('flowkit.')}.json": schema(model) for model in MESSAGES}
    return {**schemas, "settings.md": settings(), "cli.md": command_line()}


def schema(model: type[Message]) -> str:
    """The JSON Schema of a message as it travels."""
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{model.TYPE.replace('.', ':')}:1",
        **_as_on_the_wire(model.model_json_schema()),
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


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


def settings() -> str:
    """Every setting with its default."""
    rows = [
        f"| `{name}` | `FLOWKIT_{name.upper()}` | {f'`{FLAGS[name]}`' if name in FLAGS else ''} | `{field.default}` | "
        f"{field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    files = [f"- `{variable}`: a file with the password of `{name}`" for name, variable in PASSWORD_FILES.items()]
    return SETTINGS.format(rows="\n".join(rows), files="\n".join(files))


STREAMS = """\
Data goes to stdout, messages go to stderr. What the code of nodes prints while `run`, `check` or `graph` imports and
runs it goes to stderr too, whether by `print`, by file descriptor 1, or by a child process. A character that the
encoding of a stream cannot hold (`PYTHONIOENCODING`, a locale, a console) is written as in JSON, `\\u00e9`, so that
JSON stays the same JSON; a lone surrogate is written so in UTF-8 too. Inputs, as arguments and on stdin, are UTF-8.

Exit codes: 0 ok · 1 the run or operation failed, or stdout cannot be written · 2 usage or configuration · 3 broker or
store unreachable · 4 not found · 5 timed out waiting · 6 refused or conflict · 130 interrupted."""


def command_line() -> str:
    """What every verb says with --help."""
    parts = ["# Command line", "", "<!-- written by `make docs` from each verb's --help -->", "", STREAMS, ""]
    for words, said in _helps(()):
        parts += [
            f"{'#' * min(2 + len(words[1:]), 3)} flowkit {' '.join(words)}".rstrip(),
            "",
            "```text",
            said,
            "```",
            "",
        ]
    return "\n".join(parts)


def _helps(words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    said = _help(words)
    yield words, said
    _, found, commands = said.partition("\nCommands:\n")
    for line in commands.partition("\n\n")[0].splitlines() if found else ():
        if not line.startswith("   "):  # deeper is the rest of a description
            yield from _helps((*words, line.split()[0]))


def _help(words: tuple[str, ...]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "flowkit.cli", *words, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


if __name__ == "__main__":
    (FOLDER / "schemas").mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
        print(f"wrote docs/reference/{name}")

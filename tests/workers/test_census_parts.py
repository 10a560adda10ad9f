"""The pure parts of the code census, on small files; the whole of it runs in the end-to-end tests."""

from __future__ import annotations

import ast
import gc
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from flowkit import loading

WORKERS = Path(__file__).parents[2] / "workers"


def module_of(node: str) -> ModuleType:
    """The file of a node, imported as a worker imports it."""
    (definition,) = loading.load(node, WORKERS)
    return sys.modules[definition.main.__module__]


@pytest.fixture(scope="module")
def discover() -> ModuleType:
    return module_of("discover")


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    return module_of("measure")


@pytest.fixture(scope="module")
def summarize() -> ModuleType:
    return module_of("summarize")


def write(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")


def test_python_files_are_found_in_a_steady_order(discover: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "b.py", "a.py", "z/c.py", "d/e/f.py", "readme.md", "pyproject.toml")
    assert discover.find(str(tmp_path), 10)[1] == ["a.py", "b.py", "d/e/f.py", "z/c.py"]
    assert discover.find(str(tmp_path), 2)[1] == ["a.py", "b.py"]


def test_other_people_s_code_and_hidden_folders_are_left_out(discover: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "own.py", "site-packages/other.py", "__pycache__/old.py", ".venv/lib/x.py", "node_modules/y.py")
    assert discover.find(str(tmp_path), 10)[1] == ["own.py"]


def test_without_a_directory_it_is_the_standard_library(discover: ModuleType) -> None:
    root, files = discover.find(None, 10_000)
    assert root == str(Path(sysconfig.get_path("stdlib")).resolve())
    assert "asyncio/base_events.py" in files


def test_a_directory_that_is_none_is_named(discover: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="missing is no directory; give the input 'directory'"):
        discover.find(str(tmp_path / "missing"), 10)


def measured(module: ModuleType, source: str) -> dict[str, Any]:
    return module.measure(dedent(source).encode())


def test_lines_functions_and_classes(measure: ModuleType) -> None:
    found = measured(
        measure,
        """\
        class A:
            def short(self): ...

            async def long(self):
                def inner():
                    return lambda: 1
                return inner
        """,
    )
    assert found == {
        "lines": 7,
        "functions": 3,
        "classes": 1,
        "nesting": 3,
        "longest": {"name": "long", "line": 4, "lines": 4},
    }


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("", 0),
        ("x = [i for i in range(3) if i]", 0),
        ("if x:\n  pass", 1),
        ("if x:\n  pass\nelif y:\n  pass\nelif z:\n  pass\nelse:\n  pass", 1),
        ("if x:\n  pass\nelse:\n  if y:\n    pass", 2),
        ("try:\n  pass\nexcept E:\n  for i in x:\n    pass\nfinally:\n  pass", 2),
        ("match x:\n  case 1:\n    while y:\n      with z:\n        pass", 3),
    ],
)
def test_nesting(measure: ModuleType, source: str, depth: int) -> None:
    assert measured(measure, source)["nesting"] == depth


def test_a_file_without_functions_has_no_longest(measure: ModuleType) -> None:
    assert measured(measure, "x = 1")["longest"] is None


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"def broken(:", "SyntaxError"),
        (b"x = '\xff'", "SyntaxError"),
        (b"# coding: no-such-codec", "SyntaxError"),
        (b"x = 1\0", "ValueError|SyntaxError"),
        (b"-" * 100_000 + b"1", "RecursionError|MemoryError|SyntaxError"),
    ],
)
def test_what_cannot_be_parsed_is_an_entry_with_its_error(
    measure: ModuleType, tmp_path: Path, source: bytes, error: str
) -> None:
    (tmp_path / "odd.py").write_bytes(source)
    entry = measure.measure_file(str(tmp_path), "odd.py")
    assert entry.keys() == {"file", "error"}
    assert entry["error"].partition(":")[0] in error.split("|")
    assert len(entry["error"]) <= 200


def test_a_file_that_is_gone_is_an_entry_too(measure: ModuleType, tmp_path: Path) -> None:
    assert "FileNotFoundError" in measure.measure_file(str(tmp_path), "gone.py")["error"]


def test_files_are_measured_in_several_threads(measure: ModuleType) -> None:
    """Threads that change places in the middle of a tree: what the collector may cause at any allocation."""

    def change_places(*_: object) -> None:
        time.sleep(0)

    source = Path(ast.__file__).read_bytes()
    gc.callbacks.append(change_places)
    try:
        with ThreadPoolExecutor(2) as threads:
            entries = list(threads.map(measure.measure, [source] * 20))
    finally:
        gc.callbacks.remove(change_places)
    assert all(entry == entries[0] for entry in entries)


def test_the_summary(summarize: ModuleType) -> None:
    results = [
        {"file": f"{lines}.py", "lines": lines, "functions": 1, "classes": 2, "nesting": lines % 7,
         "longest": {"name": f"f{lines}", "line": 1, "lines": lines // 2}}
        for lines in (4, 10, 11, 100, 1_000, 10_001, 20, 30, 40, 50, 60, 70)
    ]  # fmt: skip
    results += [{"file": "broken.py", "error": "SyntaxError"}, {"file": "empty.py"}]
    found = summarize.summarize(summarize.Census(directory="/x", results=results))
    assert (found["files"], found["unparsed"], found["functions"], found["classes"]) == (14, 1, 12, 24)
    assert found["lines"] == 11_396
    assert found["deepest"] == {"file": "1000.py", "nesting": 6}
    assert len(found["longest_functions"]) == 10
    assert found["longest_functions"][0] == {"function": "f10001", "lines": 5_000, "where": "10001.py:1"}
    assert found["files_by_lines"] == {
        "up to 10": 3, "up to 100": 8, "up to 1,000": 1, "up to 10,000": 0, "over 10,000": 1,
    }  # fmt: skip


def test_the_summary_of_nothing(summarize: ModuleType) -> None:
    found = summarize.summarize(summarize.Census(directory="/x", results=[]))
    assert (found["files"], found["lines"], found["deepest"], found["longest_functions"]) == (0, 0, None, [])

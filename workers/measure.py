"""Second step of the code census: parse one file and say how large it is.

A file that cannot be read or parsed is a finding, not a failure: its entry carries ``error`` instead of numbers.
(The standard library of Python brings some of those, as test data.)
"""

import ast
import asyncio
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

from flowkit import Node

# Two at a time: parsing holds the interpreter lock, so that more threads would only stand in its way.
node = Node("measure", concurrency=2)

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
OTHERS = (ast.ClassDef, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
BLOCKS = FUNCTIONS + LOOPS + OTHERS

# What the parser thinks of the style of measured code is not our subject. Set once, for this name of a file only:
# warnings.catch_warnings changes the whole process, and several files are parsed at a time.
NAME = "<census>"
warnings.filterwarnings("ignore", module=NAME)

# CPython before 3.11.8 and 3.12.2 keeps one depth counter for the trees that all threads make, and fails with
# "SystemError: AST constructor recursion depth mismatch" when they make some at the same time (gh-106905).
PARSER = threading.Lock()


def statements(tree: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """Every statement with the number of blocks it stands in, itself included.

    Expressions, nine tenths of a tree, are not entered: none of what is counted stands inside one.
    """
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:  # a loop and not a recursion: generated code nests deeper than the interpreter's stack
        part, depth = waiting.pop()
        yield part, depth
        for name in ("body", "orelse", "handlers", "finalbody", "cases"):
            for child in getattr(part, name, ()):
                # `elif` is an If inside the else of an If, at the same column; nobody reads it as nested.
                again = isinstance(part, ast.If) and isinstance(child, ast.If) and child.col_offset == part.col_offset
                waiting.append((child, depth + (isinstance(child, BLOCKS) and not again)))


def measure(source: bytes) -> dict[str, Any]:
    """Lines, functions, classes, the deepest nesting of blocks, and the longest function of one file.

    Raises:
        SyntaxError, ValueError: the source is no Python, or in no encoding that Python knows.
        RecursionError, MemoryError: an expression is nested too deeply for the parser.
    """
    functions = classes = deepest = 0
    longest: dict[str, Any] | None = None
    with PARSER:
        tree = ast.parse(source, NAME)
    for part, depth in statements(tree):
        deepest = max(deepest, depth)
        classes += isinstance(part, ast.ClassDef)
        if isinstance(part, FUNCTIONS):
            functions += 1
            lines = (part.end_lineno or part.lineno) - part.lineno + 1
            if longest is None or lines > longest["lines"]:
                longest = {"name": part.name, "line": part.lineno, "lines": lines}
    return {
        "lines": len(source.splitlines()),
        "functions": functions,
        "classes": classes,
        "nesting": deepest,
        "longest": longest,
    }


def measure_file(root: str, file: str) -> dict[str, Any]:
    """``measure`` of a file, or the error that kept it from being measured."""
    try:
        return {"file": file, **measure(Path(root, file).read_bytes())}
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"file": file, "error": f"{type(error).__name__}: {error}"[:200]}


async def main() -> tuple[list[Never], dict[str, Any], str]:
    inputs = node.get_inputs()
    entry = await asyncio.to_thread(measure_file, inputs["root"], inputs["file"])
    return [], entry, "skipped" if "error" in entry else "measured"


node.register_main(main)
node.run()

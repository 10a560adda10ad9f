"""Second step of the code census: parse one file and say how large it is.

A file that cannot be read or parsed is a finding, not a failure: its entry carries ``error`` instead of numbers.
(The standard library of Python brings some of those, as test data.)
"""

import ast
import asyncio
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from flowkit import Node

node = Node("measure")

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (
    *FUNCTIONS,
    ast.ClassDef,
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.Match,
)


def measure(source: bytes) -> dict[str, Any]:
    """Lines, functions, classes, the deepest nesting of blocks, and the longest function of one file.

    Raises:
        SyntaxError, ValueError: the source is no Python, or in no encoding that Python knows.
        RecursionError, MemoryError: an expression is nested too deeply for the parser.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the parser thinks of the measured code's style is not our subject
        tree = ast.parse(source)
    functions = classes = deepest = 0
    longest = None
    waiting: deque[tuple[ast.AST, int]] = deque([(tree, 0)])
    while waiting:  # a loop and not a recursion: real code nests deeper than the interpreter's stack
        part, depth = waiting.popleft()
        depth += isinstance(part, BLOCKS)
        deepest = max(deepest, depth)
        classes += isinstance(part, ast.ClassDef)
        if isinstance(part, FUNCTIONS):
            functions += 1
            lines = (part.end_lineno or part.lineno) - part.lineno + 1
            if longest is None or lines > longest["lines"]:
                longest = {"name": part.name, "line": part.lineno, "lines": lines}
        waiting.extend((child, depth) for child in ast.iter_child_nodes(part))
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


async def main():
    inputs = node.get_inputs()
    entry = await asyncio.to_thread(measure_file, inputs["root"], inputs["file"])
    return [], entry, "skipped" if "error" in entry else "measured"


node.register_main(main)
node.run()

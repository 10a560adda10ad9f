"""Import of node files: the author's code becomes a module, or one line that says why it cannot."""

from __future__ import annotations

import asyncio
import atexit
import dis
import importlib
import importlib.util
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeGuard, TypeVar

from pydantic import ValidationError

from flowkit.errors import InvalidNode, UsageError
from flowkit.node import hosted
from flowkit.packages import make_importable, package_of
from flowkit.wire.messages import explain
from flowkit.worker.failure import message_of, type_of
from flowkit.worker.records import capture

T = TypeVar("T")
_LONGEST = 500  # characters of an error's text
_NO_LOOP = "no running event loop"
_INTERRUPTING = (signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL, None)  # which are left as they are
_idle_loops: list[asyncio.AbstractEventLoop] = []  # the last one is in use


def import_file(file: Path) -> ModuleType:
    """The module of a node file; it is imported once.

    Raises:
        InvalidNode: it cannot be imported; one line that says why.
    """
    if not file.is_file():
        kind = "is a folder" if file.is_dir() else "cannot be read: no such file" if not file.exists() else "is no file"
        raise InvalidNode(f"node file {file} {kind}; expected a file with Python code")
    # The file itself may be a link, as in a volume of Kubernetes: its name is that of the node.
    file = file.parent.resolve() / file.name
    with author_code(str(file)):
        if file.is_symlink():
            make_importable(file.resolve().parent)
        name = f"{package_of(file.parent)}.{file.stem}"
        if name not in sys.modules:
            _check_origin(name, file)
        module = importlib.import_module(name)
    if not is_a(module, ModuleType):
        raise InvalidNode(f"node file {file} replaces itself in sys.modules with a {type(module).__name__}")
    return module


def is_a(value: object, kind: type[T]) -> TypeGuard[T]:
    """``isinstance`` for an author's value: a proxy may raise when its ``__class__`` is read."""
    return issubclass(type(value), kind)


def _check_origin(name: str, file: Path) -> None:
    """Raise ``InvalidNode`` when the name means something else, such as a folder ``add`` beside ``add.py``."""
    spec = importlib.util.find_spec(name)
    if spec is None:  # the import system knows the folder from before the file was there
        importlib.invalidate_caches()
        spec = importlib.util.find_spec(name)
    if spec is None or spec.origin != str(file):
        found = "nothing" if spec is None else spec.origin or f"the folder {file.stem}"
        raise InvalidNode(f"node file {file}: Python finds {found} under its name; rename one of them")


@contextmanager
def author_code(where: str) -> Iterator[None]:
    """Run the author's code without an event loop; let Nodes know that a worker imports them.

    Args:
        where: the file, for messages.

    Raises:
        InvalidNode: the code raised something; one line that says what.
        KeyboardInterrupt: Ctrl-C, but not a ``raise`` of the author's.
    """
    capture()
    token = hosted.set(True)
    try:
        with _no_running_loop(), _interruptible():
            yield
    except UsageError as error:
        said = _one_line(str(error))
        raise InvalidNode(
            said if isinstance(error, InvalidNode) and where in said else f"node {where}: {said}"
        ) from None
    except BaseException as error:
        if is_a(error, KeyboardInterrupt) and not _is_raised_by(error, where):
            raise
        raise InvalidNode(f"node {where}{_line(error, where)}: {_describe(error)}") from None
    finally:
        hosted.reset(token)


@contextmanager
def _no_running_loop() -> Iterator[None]:
    """Let no event loop run in this thread, and let another one than that of FlowKit be the current one.

    So a file is imported alike by all that import it, whatever another file has left behind: ``asyncio.run()`` works
    in it, and what needs a running loop says so. The import stays in its thread, as ``signal.signal()`` works in the
    main thread alone.
    """
    loop = asyncio._get_running_loop()  # noqa: SLF001 - as event loops do
    task = asyncio.current_task() if loop is not None else None
    if loop is not None and task is not None:
        asyncio.tasks._leave_task(loop, task)  # noqa: SLF001 - documented under "Extending" asyncio
    asyncio._set_running_loop(None)  # noqa: SLF001
    asyncio.set_event_loop(_idle_loop() if sys.version_info < (3, 14) else None)  # where Python makes none by itself
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)  # noqa: SLF001
        if loop is not None:
            asyncio.set_event_loop(loop)
        if loop is not None and task is not None:
            asyncio.tasks._enter_task(loop, task)  # noqa: SLF001


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end an import at once: a loop that runs in this thread would handle it after the import."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in _INTERRUPTING:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and no handler of the file's own
            signal.signal(signal.SIGINT, before)


def _idle_loop() -> asyncio.AbstractEventLoop:
    """What ``asyncio.get_event_loop()`` gives to a file, as it does in a script."""
    if not _idle_loops or _idle_loops[-1].is_closed():
        _idle_loops.append(asyncio.new_event_loop())
        atexit.register(_idle_loops[-1].close)
    return _idle_loops[-1]


def _is_raised_by(error: BaseException, file: str) -> bool:
    """Whether a ``raise`` of the author's raised this; Ctrl-C interrupts other instructions."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_lasti < 0:
        return False
    code = trace.tb_frame.f_code
    author = Path(code.co_filename).is_relative_to(Path(file).parent)
    return author and code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _line(error: BaseException, file: str) -> str:
    if is_a(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _describe(error: BaseException) -> str:
    if is_a(error, ValidationError):  # whose first line names no field
        text = _one_line(explain(error))
    else:
        text = _one_line(error.msg if is_a(error, SyntaxError) else message_of(error))
    if is_a(error, RuntimeError) and text == _NO_LOOP:
        text += "; none runs while a file is imported: move this into main"
    return f"{type_of(error)}: {text}" if text else type_of(error)


def _one_line(text: object) -> str:
    """The first line that says something, with control characters escaped, as much of it as one can read."""
    lines = (line.strip() for line in str(text).splitlines())
    first = next((line for line in lines if line), "")
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in first[:_LONGEST])
    return shown if len(first) <= _LONGEST else f"{shown}…"

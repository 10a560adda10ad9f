"""The standard streams: text that their encoding cannot hold is escaped, and stdout can be kept for results alone.

A program that reads results gets nothing else on stdout: not what an author's code prints, nor what its child processes
and its C libraries write to file descriptor 1. No text is lost, and none is an error, because of a stream's encoding.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TextIO, cast

ESCAPE = "flowkit.escape"  # name of the error handler below
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)  # what a full disk says, and its like
STDIN, STDOUT, STDERR = 0, 1, 2  # file descriptors

_results: TextIO | None = None  # where results go while stdout is reserved


def escape(error: UnicodeError) -> tuple[str, int]:
    r"""Write what an encoding cannot hold as JSON does: ``\u00e9``, and a surrogate pair beyond ``\uffff``.

    Inside a JSON string that is the same text, so one handler serves data for programs and text for people. A lone
    surrogate, which UTF-8 cannot hold either, becomes ``\ud800``.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = range(0, len(units), 2)
    return "".join(f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in pairs), error.end


codecs.register_error(ESCAPE, escape)


def prepare() -> None:
    """Make the standard streams of a process usable.

    A standard file descriptor that is closed is opened on the null device: otherwise the next file or socket would get
    its number, and whatever is printed would be written there.
    """
    for number, name, mode in ((STDIN, "stdin", "r"), (STDOUT, "stdout", "w"), (STDERR, "stderr", "w")):
        _occupy(number, os.O_RDONLY if mode == "r" else os.O_WRONLY)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: Windows before Python 3.12
        if not os.isatty(STDOUT):  # what a non-blocking pipe has no room for would be lost
            os.set_blocking(STDOUT, True)


def escape_unencodable(stream: TextIO) -> None:
    """Let a stream escape what its encoding cannot hold, where it is a text stream over bytes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ESCAPE)


def results() -> TextIO:
    """The stream for results: stdout as the process was given it."""
    return _results or sys.stdout


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Undo, after the block, a ``reserve_stdout`` that replaced a stream object and no file descriptor."""
    global _results
    before = sys.stdout
    try:
        yield
    finally:
        if _results is not None and _results is before:
            sys.stdout, _results = before, None


def reserve_stdout() -> None:
    """Keep stdout for ``results()``: everything else that is written to stdout from now on goes to stderr.

    File descriptor 1 becomes a copy of 2, to the end of the process: code that runs at exit prints too. Where
    ``sys.stdout`` is no file descriptor 1, but an object that somebody has put there, that object is replaced.
    """
    global _results  # noqa: PLW0603 - one process has one stdout
    if _results is not None:
        return
    stream = sys.stdout
    if not _is_stdout(stream):
        _results, sys.stdout = stream, sys.stderr
        return
    stream.flush()
    kept = os.dup(STDOUT)  # not inherited: a child process that lives on does not hold the reader's pipe open
    os.dup2(STDERR, STDOUT)
    _results = open(kept, "w", encoding=stream.encoding, errors=ESCAPE)  # noqa: SIM115, PTH123 - it stays open
    if hasattr(os, "register_at_fork"):  # nor does one that is forked, and it writes no results
        os.register_at_fork(after_in_child=partial(discard, _results))
    cast("io.TextIOWrapper", stream).reconfigure(line_buffering=True)  # so that lines keep their order on stderr


def discard_unwritable() -> None:
    """Discard what the output streams still hold where it cannot be written: the interpreter would try again."""
    for stream in {results(), sys.stdout, sys.stderr}:
        try:
            stream.flush()
        except (OSError, ValueError):
            discard(stream)


def discard(stream: TextIO) -> None:
    """Send what a stream still holds, and what comes, to the null device: whoever read it has gone."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _occupy(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _is_stdout(stream: TextIO) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == STDOUT
    except (OSError, ValueError):
        return False

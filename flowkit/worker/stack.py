"""Where a thread is: the author's line in its stack."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path

# Code that is never the line to show: FlowKit's own, and what calls author code in a loop or in a thread.
_MACHINERY = (
    str(Path(__file__).parents[1]) + os.sep,
    str(Path(asyncio.__file__).parent) + os.sep,
    str(Path(concurrent.futures.__file__).parent) + os.sep,
    str(Path(threading.__file__)),
)


def place_of_thread(ident: int | None) -> str | None:
    """The author's innermost line in a thread, as ``file:line in function``.

    Args:
        ident: of the thread.

    Returns:
        None when the thread has ended.
    """
    frame = sys._current_frames().get(ident or 0)  # noqa: SLF001 - the one way to see another thread
    return None if frame is None else place(traceback.extract_stack(frame))


def place(stack: Iterable[traceback.FrameSummary]) -> str:
    """The innermost line that is neither the library's nor FlowKit's: the author's, most likely."""
    frames = list(stack)
    theirs = [frame for frame in frames if not frame.filename.startswith(_MACHINERY)]
    frame = (theirs or frames)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}"

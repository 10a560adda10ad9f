"""How large each part of a message may be, said once: for the models, their JSON Schemas and whoever makes messages.

Both stores can keep whatever is within these bounds. PostgreSQL decides: an entry of an index has at most 2,704 bytes,
all columns together, and random text does not compress; a character takes up to four bytes. What is in no index is
bounded all the same, so that one message of any login cannot fill a page, a terminal or the memory of a coordinator.
A message that exceeds a bound cannot be read. What FlowKit itself writes is refused where it is made, or cut with a
mark that says so (`cut`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

# Characters
WORKER = 200  # the name of a worker: an index, and another one together with a number
SIGNAL = 100  # the name of a signal: an index, together with a run id
KEY = 100  # the name of an input by which limits count apart: an index, together with a node and a value
VERSION = 200  # of a worker's FlowKit
HOST = 200  # the machine of a worker
FINGERPRINT = 100  # of what a run began with
LEVEL = 50  # of a log line
ERROR_TYPE = 200
NEXT = 200  # a name that may follow
TEXT = 65_536  # a message, the message of an error, a traceback
TAG_KEY = 200
TAG_VALUE = 2_000

# How many
TAGS = 100
OTHERS = 1_000  # further tasks in one control message
PARTS = 10_000  # messages in an array; own workers put 20 results or 500 lines into one
ENTRIES = 1_000_000  # of any list; what a run may have of them is a setting

# Numbers
INT32 = 2**31 - 1  # what a column of counts holds
INT64 = 2**63 - 1

_MARK = "… ({:,} characters left out)"

WorkerName = Annotated[str, Field(max_length=WORKER)]
SignalName = Annotated[str, Field(max_length=SIGNAL)]
Text = Annotated[str, Field(max_length=TEXT)]
Count = Annotated[int, Field(ge=1, le=INT32)]
Tags = Annotated[
    dict[Annotated[str, Field(max_length=TAG_KEY)], Annotated[str, Field(max_length=TAG_VALUE)]],
    Field(max_length=TAGS),
]


def shown(value: object, limit: int = 60) -> str:
    """A value that somebody gave, for a message: its ``repr``, cut; a note in its place when that raises."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - an author's __repr__, or an integer of 5,000 digits
        return f"({type(value).__name__}, whose repr() raised {type(error).__name__})"
    return text if len(text) <= limit else f"{text[:limit]}…"


def cut(text: str, limit: int = TEXT) -> str:
    """The text, or its beginning and how much is left out: ``limit`` characters at most (of 40 or more)."""
    if len(text) <= limit:
        return text
    kept = limit - len(_MARK.format(len(text)))
    return text[:kept] + _MARK.format(len(text) - kept)

"""What a node, a run, a namespace and a process may be called; checked before any use of a name from outside."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

NODE = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"
NODE_IN_WORDS = "a letter, then up to 62 letters, digits, '_' or '-'"
RUN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"
NAMESPACE = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"  # no dots: a dot ends the namespace in every exchange and queue name
# A worker or a coordinator. With the longest namespace its queue (<namespace>.control.<name>) is under 255 bytes.
PROCESS = r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,99}$"
PROCESS_IN_WORDS = "a letter or digit, then up to 99 letters, digits, '.', '_', '@', ':' or '-'"

NodeName = Annotated[str, StringConstraints(pattern=NODE)]
RunId = Annotated[str, StringConstraints(pattern=RUN)]

_node, _run, _namespace, _process = (
    re.compile(pattern.removesuffix("$") + r"\Z") for pattern in (NODE, RUN, NAMESPACE, PROCESS)
)


def is_node(name: str) -> bool:
    """Whether ``name`` may be the name of a node."""
    return _node.match(name) is not None


def is_run(name: str) -> bool:
    """Whether ``name`` may be the id of a run."""
    return _run.match(name) is not None


def is_namespace(name: str) -> bool:
    """Whether ``name`` may be a namespace."""
    return _namespace.match(name) is not None


def is_process(name: str) -> bool:
    """Whether ``name`` may be the name of a worker or a coordinator."""
    return _process.match(name) is not None

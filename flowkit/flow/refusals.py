"""What a coordinator notes in the store of a node whose queue refuses tasks, and how it is read."""

from __future__ import annotations

import json

FRESH = 30.0  # seconds that a note counts: a coordinator writes it anew at least every 5
PREFIX = "refused:"  # before the name of the node


def key_of(node: str) -> str:
    """The name of the fact."""
    return PREFIX + node


def note(reason: str | None, now: float) -> str:
    """A note at ``now`` (Unix seconds); ``reason`` is None when the queue accepts tasks."""
    return json.dumps({} if reason is None else {"reason": reason, "at": now})


def read_reason(noted: str | None, now: float) -> str | None:
    """Why the queue refuses tasks; None when it accepts them, or nobody has noted anything lately."""
    found = json.loads(noted) if noted else {}
    if "reason" not in found or abs(now - found["at"]) > FRESH:
        return None
    return str(found["reason"])

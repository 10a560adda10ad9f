"""Ids of new runs."""

from __future__ import annotations

import secrets
import time


def new_run_id() -> str:
    """A UUID of version 7 (RFC 9562) as 32 hexadecimal digits: milliseconds, then 74 random bits.

    All rows of a run stand behind its id. With ids in the order of time those of the runs under way stand beside each
    other, so a batch writes a few pages of each index, and not one for each run.
    """
    made = time.time_ns() // 1_000_000 << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return f"{made:032x}"

"""Names that nobody else has."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import count


def fresh_ids() -> Iterator[str]:
    """As many as anybody wants, different from all others. It is one system call; a uuid is one each."""
    prefix = secrets.token_hex(8)
    return (f"{prefix}{number:x}" for number in count())

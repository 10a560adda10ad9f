"""Positions of tasks, and the ids that follow from them.

A path grows by a segment with each step, and a loop may go on for years. So a path that would have more than
``LONGEST`` segments within its scope is folded: the first of them stays, with the number of the fold and a digest of
the path that was folded (``0+7-5f1c0a9be042``). What follows from that task stands below it, until it is folded again.
Each path is still unique in its run, follows from that of the task before, and begins with the path of its branch.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from uuid import UUID

ROOT = "0"
THEN = "then"  # the last segment of a continuation
LONGEST = 20  # segments of a path within its scope; it is folded before it has more
MOST = 1_500  # characters of a path: indexes of PostgreSQL hold 2,700 bytes
FOLDED = "+"  # between a segment and the number of the fold; sorts before the dot


def child(path: str, index: int) -> str:
    """Path of the ``index``-th item that the task at ``path`` returned, or of a branch of the scope at ``path``."""
    return f"{path}.{index}"


def then(scope: str) -> str:
    """Path of the continuation of a scope."""
    return f"{scope}.{THEN}"


def depth(path: str) -> int:
    """How many segments."""
    return path.count(".") + 1


def fold(path: str, scope: str) -> str:
    """The path of a task in ``scope``, folded if it would be too long otherwise."""
    if path.count(".") - scope.count(".") <= LONGEST - (scope == ""):
        return path
    above = f"{scope}." if scope else ""
    number, _, folded = path[len(above) :].partition(".")[0].partition(FOLDED)
    digest = hashlib.sha256(path.encode()).hexdigest()[:12]
    return f"{above}{number}{FOLDED}{int(folded.partition('-')[0] or 0) + 1}-{digest}"


def is_folded(path: str) -> bool:
    """Whether it is, or stands below one that is: the path of a loop, or of a very long chain."""
    return FOLDED in path


def is_below(path: str, above: str) -> bool:
    """Whether ``path`` is the path of a branch ``above``, or stands in that branch."""
    return path == above or path.startswith((f"{above}.", f"{above}{FOLDED}"))


def branch(scope: str, path: str) -> int:
    """Which branch of ``scope`` a path below it belongs to."""
    return int(path[len(scope) + 1 :].partition(".")[0].partition(FOLDED)[0])


def order(path: str) -> tuple[tuple[int, int, int, str], ...]:
    """Sort key: segments compared as numbers, folds behind the path that they begin with, ``then`` behind all."""
    return tuple(map(_segment_order, path.split(".")))


@lru_cache(maxsize=4_096)
def _segment_order(segment: str) -> tuple[int, int, int, str]:
    if segment == THEN:
        return (1, 0, 0, "")
    number, _, fold = segment.partition(FOLDED)
    folds, _, digest = fold.partition("-")
    return (0, int(number), int(folds or 0), digest)


def task_id(secret: bytes, parent: str | UUID, path: str) -> UUID:
    """The id of the task at ``path``: the same whenever the same result is applied, and not to be guessed.

    HMAC-SHA256 of the parent's id, a NUL byte and the path, keyed by the store's secret; the first 16 bytes as a
    UUID of version 8 (RFC 9562, section 5.8: contents of one's own).

    Args:
        secret: of the store.
        parent: id of the task that returned it, or of the run for the root.
        path: where it stands.
    """
    keyed_inner, keyed_outer = _halves(secret)
    inner, outer = keyed_inner.copy(), keyed_outer.copy()
    inner.update(f"{parent}\0{path}".encode())
    outer.update(inner.digest())
    number = int.from_bytes(outer.digest()[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return UUID(int=number)


@lru_cache(maxsize=8)
def _halves(secret: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Both hashes of an HMAC (RFC 2104) with the key in them: to copy them costs half of ``hmac.digest``."""
    block = 64  # bytes, of SHA-256
    key = (hashlib.sha256(secret).digest() if len(secret) > block else secret).ljust(block, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in key)), hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

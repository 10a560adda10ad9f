"""Positions of tasks, and the ids that follow from them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from uuid import UUID

ROOT = "0"
THEN = "then"  # the last segment of a continuation


def child(path: str, index: int) -> str:
    """Path of the ``index``-th item that the task at ``path`` returned, or of a branch of the scope at ``path``."""
    return f"{path}.{index}"


def then(scope: str) -> str:
    """Path of the continuation of a scope."""
    return f"{scope}.{THEN}"


def depth(path: str) -> int:
    """How many segments."""
    return path.count(".") + 1


def branch(scope: str, path: str) -> int:
    """Which branch of ``scope`` a path below it belongs to."""
    return int(path[len(scope) + 1 :].partition(".")[0])


def order(path: str) -> tuple[tuple[int, int], ...]:
    """Sort key: segments compared as numbers, ``then`` behind all of them."""
    return tuple((1, 0) if segment == THEN else (0, int(segment)) for segment in path.split("."))


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

"""The id of a task, which must never change: results on their way name it."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from flowkit.flow import paths


@given(secret=st.binary(max_size=200), parent=st.uuids() | st.text(max_size=40), path=st.text(max_size=40))
def test_an_id_is_an_hmac_of_where_the_task_stands(secret: bytes, parent: UUID | str, path: str) -> None:
    made = paths.task_id(secret, parent, path)
    digest = hmac.digest(secret, f"{parent}\0{path}".encode(), hashlib.sha256)
    told, expected = made.bytes, digest[:16]
    assert (told[6] >> 4, told[8] >> 6) == (8, 2), "a UUID of version 8"
    assert told[:6] + bytes([told[6] & 15, told[7], told[8] & 63]) + told[9:] == (
        expected[:6] + bytes([expected[6] & 15, expected[7], expected[8] & 63]) + expected[9:]
    )


def test_the_same_place_has_the_same_id_for_ever() -> None:
    assert paths.task_id(b"secret", "run", "0.1.then") == UUID("6d803269-f14c-8058-a0a9-b74dc789e814")

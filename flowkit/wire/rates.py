"""How a rate is written: ``100/s``, ``5/min``, ``1000/h``, or with a number of units, ``1/30s``."""

from __future__ import annotations

import re

PATTERN = r"^[1-9][0-9]{0,8}/([1-9][0-9]{0,5})?(s|min|h|d)$"
EXPECTED = "a number from 1 on, then s, min, h or d, such as '100/s', '5/min' or '1/30s'"
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def is_rate(text: str) -> bool:
    """Whether ``text`` is written as a rate."""
    return re.fullmatch(PATTERN, text) is not None


def interval(rate: str) -> float:
    """Seconds from one task to the next."""
    found = re.fullmatch(PATTERN, rate)
    assert found is not None, f"{rate!r} was checked when it was announced"
    units, unit = found.groups()
    return int(units or 1) * _SECONDS[unit] / int(rate.partition("/")[0])

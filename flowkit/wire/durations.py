"""How long anything may take, in seconds.

Bounded, so that a time plus a duration is always a time that a clock can show and a database can keep. What is longer
is a mistake of units, and is refused where it was made.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

YEARS = 100
LONGEST = YEARS * 365.25 * 86_400  # seconds; event loops have no longer timers either
UP_TO = f"up to {YEARS} years"

# Strict: text and booleans are no durations.
Duration = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False, strict=True)]
Timeout = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False, strict=True)]


def is_timeout(value: object) -> bool:
    """Whether an author's value may be a ``Timeout``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST


def is_duration(seconds: float) -> bool:
    """Whether a number may be a ``Duration``."""
    return math.isfinite(seconds) and 0 <= seconds <= LONGEST

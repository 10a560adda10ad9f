"""What this machine knows of calendars: its time zones, and whether the library for cron lines is here."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, tzinfo
from difflib import get_close_matches
from importlib.util import find_spec

from flowkit.errors import InvalidSchedule
from flowkit.flow.cron import Cron


def installed() -> bool:
    """Whether cronsim, an extra, is here."""
    return find_spec("cronsim") is not None


def cron(line: str, timezone: str) -> Cron:
    """A cron line in a time zone.

    Raises:
        InvalidSchedule: the line or the name of the zone cannot be.
        UsageError: cronsim is not installed.
    """
    return Cron(line, zone(timezone))


def zone(name: str) -> tzinfo:
    """A time zone.

    Raises:
        InvalidSchedule: this machine knows none of that name.
    """
    if name == "UTC":  # also where there is no database of time zones
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidSchedule("time zone", name[:100], _advice(name)) from None


def _advice(name: str) -> str:
    known = zoneinfo.available_timezones()
    if not known:
        return "this machine has no time zone database. Install it with: pip install tzdata"
    by_folded = {one.casefold(): one for one in known}
    near = get_close_matches(name[:100].casefold(), by_folded, n=1, cutoff=0.6)
    return f"unknown; did you mean {by_folded[near[0]]!r}?" if near else "unknown; expected one such as 'Europe/Berlin'"

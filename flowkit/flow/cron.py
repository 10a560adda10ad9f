"""When a cron line comes due. The library cronsim knows; it keeps to Debian's cron where clocks are changed.

A line is bounded before it is parsed, and a tick is never asked for one by one over a long time: so no line, however it
is written, takes long.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

from flowkit.errors import InvalidSchedule, UsageError

LONGEST = 200  # characters of a line
FIELDS = "five fields: minute, hour, day of month, month, day of week, such as '30 2 * * 1-5'"
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Cron:
    """A cron line in a time zone.

    Args:
        line: five fields, or a nickname such as ``@daily``.
        zone: whose clocks it is about.

    Raises:
        InvalidSchedule: the line is none, or its fields cannot be.
        UsageError: cronsim is not installed.
    """

    def __init__(self, line: str, zone: tzinfo) -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ModuleNotFoundError as error:
            if error.name != "cronsim":
                raise
            raise UsageError(
                "schedules need the library cronsim. Install it with: pip install 'flowkit-mq[cron]'"
            ) from None
        if len(line) > LONGEST:
            raise InvalidSchedule("cron line", f"{line[:40]}…", f"{len(line):,} characters are more than {LONGEST}")
        written = NICKNAMES.get(line.strip(), line)
        if not (written.isascii() and written.isprintable()) or len(written.split()) != 5:
            raise InvalidSchedule("cron line", line, f"expected {FIELDS}")
        self._line, self._zone, self._cronsim = written, zone, CronSim
        try:
            self._words = CronSim(written, datetime(2026, 1, 1)).explain  # noqa: DTZ001 - any time: it only parses
        except CronSimError as error:
            reason = f"its {str(error).removeprefix('Bad ')} cannot be"
            raise InvalidSchedule("cron line", line, f"{reason}; expected {FIELDS}") from None

    def after(self, time: float) -> float | None:
        """The first tick behind ``time`` (Unix seconds); None: there is none in the next fifty years."""
        try:
            for tick in self._cronsim(self._line, datetime.fromtimestamp(time, self._zone)):
                # At the hour that comes twice a fixed time belongs to the first: seen from the second, it has passed.
                if tick.timestamp() > time:
                    return tick.timestamp()
        except (OverflowError, ValueError):  # behind the year 9999
            pass
        return None

    def words(self) -> str:
        """In plain words, such as ``At 02:30 on Monday through Friday``."""
        return self._words()

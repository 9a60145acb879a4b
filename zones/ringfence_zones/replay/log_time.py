"""The time at the beginning of a log line, in seconds since the epoch of that log's own clock.

log4j's ISO8601 (`2026-11-22 08:57:41,157`), the same with `T` and `Z` as Ringfence writes it, and the two-digit years
(`26/11/22 08:57:41`) of Hadoop's console pattern. log4j writes local time and does not say which: times of one log are
compared with each other alone, never with a clock.
"""

from __future__ import annotations

import datetime as dt
import re

_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d|\d\d/\d\d/\d\d)[ T](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:[.,](?P<fraction>\d{1,9}))?"
)
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_DAYS_KEPT = 4096


class LogClock:
    """Remembers days: a log has few."""

    def __init__(self) -> None:
        self._days: dict[str, int | None] = {}

    def find(self, text: str) -> tuple[float, str] | None:
        """The time that `text` begins with: in seconds, and as it stands there. None when it begins with none."""
        match = _TIME.match(text)
        if match is None:
            return None
        day, hour, minute, second, fraction = match.groups()
        if day not in self._days:
            if len(self._days) >= _DAYS_KEPT:
                self._days.clear()
            self._days[day] = _day_s(day)
        day_s = self._days[day]
        if day_s is None:
            return None
        whole = day_s + int(hour) * 3600 + int(minute) * 60 + int(second)
        return (whole + float(f"0.{fraction}") if fraction else float(whole)), match[0]


def _day_s(day: str) -> int | None:
    text = day if len(day) == 10 else "20" + day.replace("/", "-")
    try:
        return (dt.date.fromisoformat(text).toordinal() - _EPOCH_DAY) * 86_400
    except ValueError:
        return None

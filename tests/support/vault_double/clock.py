"""The double's time: the machine's, moved forward on a test's word, so that no test waits for a token to expire."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Seconds since the epoch, plus what tests skipped."""

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def now(self) -> float:
        return time.time() + self._skipped_s

    def advance(self, seconds: float) -> None:
        """Skips ahead; time never runs backwards."""
        if seconds < 0:
            raise ValueError("time cannot be turned back")
        self._skipped_s += seconds


def as_rfc3339(seconds: float) -> str:
    """Go's RFC 3339 with nanoseconds, as Vault prints times."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"

"""How often one caller may ask: a bucket of tokens for each, so that none can keep the agent from the others.

A caller's bucket fills at `per_s` and holds `burst`; a request takes one. Buckets are kept for the `MAX_KNOWN` callers
that asked last: whoever was forgotten begins with a full one, and by then its own would have been full again unless
so many others asked within one second.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_KNOWN = 4096


class RateLimit:
    """Counts requests by caller. `burst` is at least 1."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(1.0, burst)
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, caller: Hashable) -> float:
        """0 when the caller may go on, else the seconds until it may; a request that has to wait takes nothing."""
        now = self._clock()
        left = self._left(caller, now)
        if left < 1.0:
            return (1.0 - left) / self._per_s
        self._buckets[caller] = (left - 1.0, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MAX_KNOWN:
            self._buckets.popitem(last=False)
        return 0.0

    def wait_s(self, caller: Hashable) -> float:
        """What `take` would say, without taking."""
        left = self._left(caller, self._clock())
        return 0.0 if left >= 1.0 else (1.0 - left) / self._per_s

    def _left(self, caller: Hashable, now: float) -> float:
        left, at = self._buckets.get(caller, (self._burst, now))
        return min(self._burst, left + (now - at) * self._per_s)

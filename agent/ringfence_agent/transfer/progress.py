"""How fast a transfer goes and how long it will take: kept in memory, for what is lost with it the ledger knows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """`moved` counts bytes read, of sources and of copies read back, since this attempt began. `rate` is in bytes of
    data per second (each is read twice), over the last ten seconds; None before there is one."""

    moved: int
    rate: float | None


class Meter:
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._moved = 0
        self._said: deque[tuple[float, int]] = deque([(clock(), 0)])

    def moved(self, size: int) -> None:
        """So many bytes were read."""
        now = self._clock()
        with self._lock:
            self._moved += size
            self._said.append((now, self._moved))
            while len(self._said) > 2 and self._said[0][0] < now - _WINDOW_S:
                self._said.popleft()

    def pace(self) -> Pace:
        """Where it stands."""
        with self._lock:
            (since, before), moved = self._said[0], self._moved
        elapsed = self._clock() - since
        rate = (moved - before) / 2 / elapsed if elapsed > 0 and moved > before else None
        return Pace(moved, rate)


def time_left_s(bytes_left: int, rate: float | None) -> float | None:
    """Seconds until so many bytes are copied and read back; None when nobody can tell."""
    if bytes_left <= 0:
        return 0.0
    return bytes_left / rate if rate else None

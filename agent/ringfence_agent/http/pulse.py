"""A pulse of each worker in shared memory, by which the supervisor sees that its event loop still turns.

A worker whose loop stands still (a call that blocks for ever, a loop without end) holds its connections and its share
of new ones, and answers none; no signal tells. Each worker counts up once a second, the supervisor only compares.
"""

from __future__ import annotations

import mmap

BEAT_S = 1.0

_COUNTER_BYTES = 8


class PulseTable:
    """One counter per worker process; made before the fork."""

    def __init__(self, processes: int) -> None:
        # One aligned 8-byte store per beat; a counter has one writer.
        self._counters = memoryview(mmap.mmap(-1, processes * _COUNTER_BYTES)).cast("Q")

    def beat(self, process: int) -> None:
        """In the worker, from its event loop."""
        self._counters[process] += 1

    def count(self, process: int) -> int:
        """In the supervisor: anything but what it was means that the loop has turned."""
        return self._counters[process]

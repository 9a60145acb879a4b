"""A number in shared memory that tells every process that something was committed.

A writer commits, then bumps; a reader compares what it last saw with what is there now, on every request, and reads
the store again when they differ. So once a create has been answered, every worker answers with it.

One 8-byte counter per process that may bump, because two processes adding to one counter could lose an addition. A
counter is never reset: its next owner goes on from where it stands. The supervisor bumps its own counter when a worker
dies, which may have committed without coming to its bump.

The order matters on both sides: bump *after* the commit, and take `current()` *before* reading the store; the other
way round a change that falls in between stays unseen.
"""

from __future__ import annotations

import mmap
import threading

_COUNTER_BYTES = 8


class GenerationTable:
    """The shared counters; made before the fork. Memory is anonymous: it goes with the last process."""

    def __init__(self, counters: int) -> None:
        self.counters = counters
        self._memory = mmap.mmap(-1, counters * _COUNTER_BYTES)

    def view(self, counter: int) -> Generation:
        """The table as the process that owns this counter uses it. Raises IndexError for a counter not there."""
        if not 0 <= counter < self.counters:
            raise IndexError(f"there is no generation counter {counter}")
        return Generation(self._memory, counter)


class Generation:
    """One process's view. `current` is a single copy of a few dozen bytes; `bump` may be called from any thread."""

    __slots__ = ("_counter", "_counters", "_lock", "_memory")

    def __init__(self, memory: mmap.mmap, counter: int) -> None:
        self._memory = memory
        # One aligned 8-byte store per bump. A torn read could only differ from what was seen: read again, no harm.
        self._counters = memoryview(memory).cast("Q")
        self._counter = counter
        self._lock = threading.Lock()

    def current(self) -> bytes:
        """All counters, to be compared as a whole; equal means that nobody has bumped since."""
        return self._memory[:]

    def bump(self) -> None:
        """Tells every process, this one included, that something was committed."""
        with self._lock:
            self._counters[self._counter] += 1

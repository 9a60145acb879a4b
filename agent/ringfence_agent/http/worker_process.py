"""The master's books: what it knows of each worker process and of each slot that one should serve."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field

from ringfence_zones.errors import RingfenceError


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """A process that was forked and is not reaped yet. `started` and `kill_at` are monotonic seconds."""

    pid: int
    slot: int
    counter: int
    reports: int
    started: float
    ready: bool = False
    problem: RingfenceError | None = None
    unread: bytes = b""
    # When to stop waiting for it; None for a serving worker.
    kill_at: float | None = None
    # Its pulse when it was last looked at, and how often in a row it has been the same.
    pulse: int = -1
    pulses_missed: int = 0

    def send(self, number: signal.Signals) -> None:
        """Sends a signal. The pid is ours until it is reaped."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def obituary(self, exit_code: int) -> str:
        """How it ended."""
        if self.problem is not None:
            return f"worker {self.slot} (pid {self.pid}): {self.problem.message}"
        how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with status {exit_code}"
        return f"worker {self.slot} (pid {self.pid}) {how}"


@dataclass(slots=True)
class Slot:
    """A place for one worker: who serves there, who is still draining, and when the next one is to be started."""

    current: WorkerProcess | None = None
    deaths: int = 0
    start_at: float | None = None
    retiring: list[WorkerProcess] = field(default_factory=list)

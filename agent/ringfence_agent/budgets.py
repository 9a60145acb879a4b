"""What the agent may cost: calls to HDFS, processor time, memory; measured, shown, and kept to.

    budgets: {hdfs_calls_per_minute: 6000, cpu_percent: 25, memory: 1GiB}        # in agent.yaml

Rules: calls and processor time are buckets that fill at the permitted rate, with a minute's worth in them at most, so
that starting Java is possible and going on like that is not. When one is empty the loop rests until it is not, but
never so long that what it saw grows stale: callers cost processor time too, and must not be able to blind the agent.
The event stream, which costs least and matters most, rests `STREAM_PAUSE_S` at most between two polls; what is only
worth doing (samples) is left out when it is half empty. When the processes together use more
memory than they may, Java is started anew, the larger first; when the agent itself does, that is fatal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

STREAM_PAUSE_S = 2.0
_WINDOW_S = 60.0
_CPU_BURST_S = 60.0  # two Java machines start on that, on a busy machine too
_RESTART_AT_MOST_EVERY_S = 60.0


class Process(Protocol):
    """What is asked of a supervised child."""

    @property
    def pid(self) -> int | None:
        """None while it does not run."""

    @property
    def calls_made(self) -> int:
        """How many calls went to HDFS through it."""

    def close(self) -> None:
        """Ends it; the next call starts it again."""


class Bucket:
    """Fills at `rate_per_s` up to `size`; may be overdrawn by as much, and says how long until it is not.
    Thread-safe."""

    def __init__(self, rate_per_s: float, size: float, clock: Callable[[], float]) -> None:
        self._rate_per_s = rate_per_s
        self._size = size
        self._clock = clock
        self._lock = threading.Lock()
        self._level = size
        self._at_s = clock()

    def spend(self, amount: float) -> None:
        """Takes out what was used."""
        with self._lock:
            self._fill()
            self._level = max(self._level - amount, -self._size)

    def delay_s(self) -> float:
        """Seconds until it is not overdrawn."""
        with self._lock:
            self._fill()
            return max(0.0, -self._level / self._rate_per_s)

    def share_left(self) -> float:
        """What is in it, of its size: 1 when full, 0 or less when empty."""
        with self._lock:
            self._fill()
            return self._level / self._size

    def _fill(self) -> None:
        now_s = self._clock()
        self._level = min(self._size, self._level + (now_s - self._at_s) * self._rate_per_s)
        self._at_s = now_s


@dataclass(frozen=True, slots=True)
class Usage:
    """What the agent's processes have used since they started, and the memory they have now."""

    calls: int
    cpu_s: float
    memory_bytes: int
    own_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """Use and limits for the status; rates are of the last minute."""

    hdfs_calls_per_minute: float = 0.0
    hdfs_calls_limit: int = 0
    cpu_percent: float = 0.0
    cpu_limit: float = 0.0
    memory_bytes: int = 0
    memory_limit: int = 0
    exceeded: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For the status."""
        return {
            "hdfs_calls_per_minute": {"used": round(self.hdfs_calls_per_minute), "limit": self.hdfs_calls_limit},
            "cpu_percent": {"used": round(self.cpu_percent, 1), "limit": self.cpu_limit},
            "memory_bytes": {"used": self.memory_bytes, "limit": self.memory_limit},
            "exceeded": self.exceeded,
        }


class Budgets:
    """See the module. `measure` is called once a cycle, by the loop."""

    def __init__(
        self,
        children: Sequence[Process],
        *,
        hdfs_calls_per_minute: int,
        cpu_percent: float,
        memory_bytes: int,
        measure: Callable[[Sequence[Process]], Usage] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = children
        self._calls_limit = hdfs_calls_per_minute
        self._cpu_limit = cpu_percent
        self._memory_limit = memory_bytes
        self._measure = measure or measure_processes
        self._clock = clock
        self._calls = Bucket(hdfs_calls_per_minute / 60, hdfs_calls_per_minute, clock)
        self._cpu = Bucket(cpu_percent / 100, _CPU_BURST_S, clock)
        self._seen: list[tuple[float, Usage]] = []
        self._restarted_s = float("-inf")
        self.view = BudgetView(hdfs_calls_limit=hdfs_calls_per_minute, cpu_limit=cpu_percent, memory_limit=memory_bytes)

    def pause_s(self) -> float:
        """How long to rest so that rates are kept."""
        return max(self._calls.delay_s(), self._cpu.delay_s())

    def has_room(self) -> bool:
        """Whether there is room for what is only worth doing."""
        return min(self._calls.share_left(), self._cpu.share_left()) > 0.5

    def measure(self) -> bool:
        """Takes stock. False when the agent itself uses more memory than all of it may: it must not go on."""
        now_s, usage = self._clock(), self._measure(self._children)
        if self._seen:
            before = self._seen[-1][1]
            self._calls.spend(max(usage.calls - before.calls, 0))
            self._cpu.spend(max(usage.cpu_s - before.cpu_s, 0.0))
        self._seen = [(at_s, each) for at_s, each in self._seen if at_s >= now_s - _WINDOW_S] + [(now_s, usage)]
        exceeded = self._exceeded(usage)
        if usage.memory_bytes > self._memory_limit and now_s >= self._restarted_s + _RESTART_AT_MOST_EVERY_S:
            self._restarted_s = now_s
            self._restart_largest()
        self.view = self._new_view(now_s, usage, exceeded)
        return usage.own_memory_bytes <= self._memory_limit

    def _exceeded(self, usage: Usage) -> str | None:
        if usage.memory_bytes > self._memory_limit:
            used, limit = (each // 1024**2 for each in (usage.memory_bytes, self._memory_limit))
            return f"the agent and its Java use {used} MiB of memory, and may use {limit}"
        if self._calls.delay_s():
            return f"more than {self._calls_limit} calls a minute to HDFS were due"
        return f"more than {self._cpu_limit:g} % of a processor was due" if self._cpu.delay_s() else None

    def _restart_largest(self) -> None:
        running = [child for child in self._children if child.pid is not None]
        if running:
            max(running, key=lambda child: _memory_bytes(child.pid or 0)).close()

    def _new_view(self, now_s: float, usage: Usage, exceeded: str | None) -> BudgetView:
        since_s, first = self._seen[0]
        span_s = max(now_s - since_s, 1e-3) if len(self._seen) > 1 else 60.0
        return BudgetView(
            hdfs_calls_per_minute=(usage.calls - first.calls) / span_s * 60,
            hdfs_calls_limit=self._calls_limit,
            cpu_percent=(usage.cpu_s - first.cpu_s) / span_s * 100,
            cpu_limit=self._cpu_limit,
            memory_bytes=usage.memory_bytes,
            memory_limit=self._memory_limit,
            exceeded=exceeded,
        )


def measure_processes(children: Sequence[Process]) -> Usage:
    """This process and its children, from /proc. A child that has just ended counts with what was waited for."""
    pids = [pid for child in children if (pid := child.pid) is not None]
    own = _memory_bytes(os.getpid())
    times = os.times()
    waited_s = times.user + times.system + times.children_user + times.children_system
    return Usage(
        calls=sum(child.calls_made for child in children),
        cpu_s=waited_s + sum(_cpu_s(pid) for pid in pids),
        memory_bytes=own + sum(_memory_bytes(pid) for pid in pids),
        own_memory_bytes=own,
    )


def _cpu_s(pid: int) -> float:
    try:
        # The name in parentheses may hold blanks; utime and stime are the 14th and 15th field.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _memory_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0

"""What a server costs: CPU time and resident memory of a process and all its descendants, from /proc.

A pre-forked server is several processes and a JVM is one, so only whole trees compare. CPU time of a child that
ended is in its parent's `cutime` once waited for, and counted there; nothing is sampled, so nothing is missed
between two looks. Resolution is the kernel's clock tick (10 ms), so a round should use a CPU second or more.

Source of the fields: proc(5), `/proc/PID/stat` and `/proc/PID/status`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of `/proc/PID/stat` that matter here. `cpu_ticks` includes children that were waited for."""

    parent: int
    cpu_ticks: int


def parse_stat(line: str) -> Stat:
    """One `/proc/PID/stat` line; the command name in it may hold blanks and brackets."""
    fields = line[line.rindex(")") + 2 :].split()
    # Counted from the field after the name: 1 is ppid, 11-14 are utime, stime, cutime, cstime.
    return Stat(parent=int(fields[1]), cpu_ticks=sum(int(field) for field in fields[11:15]))


def tree_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, used so far by `pid` and its descendants.

    Raises ProcessLookupError when `pid` is gone: a server that died has no figure.
    """
    return sum(stat.cpu_ticks for _, stat in _tree(pid)) / _TICKS_PER_S


def tree_rss_mib(pid: int) -> float:
    """Memory of the tree in MiB, pages shared between its processes counted once (proportional set size).

    Falls back to the resident set size of each process where the kernel does not tell the former.
    """
    return sum(_memory_kib(process) for process, _ in _tree(pid)) / 1024


def tree_size(pid: int) -> int:
    """How many processes the tree has now."""
    return sum(1 for _ in _tree(pid))


def _tree(pid: int) -> Iterator[tuple[int, Stat]]:
    stats: dict[int, Stat] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
    if pid not in stats:
        raise ProcessLookupError(f"process {pid} is not running")
    pending = [pid]
    while pending:
        process = pending.pop()
        yield process, stats[process]
        pending.extend(child for child, stat in stats.items() if stat.parent == process)


def _memory_kib(pid: int) -> int:
    for file_name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid}/{file_name}").read_text().splitlines()
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1])
    return 0

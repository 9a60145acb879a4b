"""Processes that outlive the command that starts them, and are only ever stopped by the one who started them.

A process is known by its pid, its start time and the boot of the machine (`/proc/PID/stat` field 22,
`/proc/sys/kernel/random/boot_id`), so a recycled pid is never signalled. Each runs in a session of its own: a
terminal that closes does not take it along, and what it forked ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.05
_KILL_TIMEOUT_S = 30.0
_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Process:
    """Who was started: `start_ticks` in clock ticks since the boot `boot_id`."""

    pid: int
    start_ticks: int
    boot_id: str


def start(command: Sequence[str], environ: Mapping[str, str], directory: Path, log: Path) -> Process:
    """Starts `command` in its own session with nothing on standard input and both outputs in `log`.

    The log of the run before is kept beside it as `NAME.previous`.
    """
    if log.exists():
        log.replace(log.with_name(log.name + ".previous"))
    # sh becomes the command: posix_spawn has no working directory, and the caller's must not be kept busy.
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'cd "$0" && exec "$@"', str(directory), *command],
        environ,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ),
        setsid=True,
        # Python ignores these two, and what it starts would inherit that.
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )
    return Process(pid=pid, start_ticks=_stat(pid)[1], boot_id=_boot_id())


def is_alive(process: Process) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # Ours to bury only when this very command started it.
    try:
        state, start_ticks = _stat(process.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and start_ticks == process.start_ticks and _boot_id() == process.boot_id


def stop(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """SIGTERM to all, SIGKILL to the session of any that is left after `timeout_s`; those are returned."""
    waiting = [process for process in processes if is_alive(process)]
    for process in waiting:
        _signal(process, signal.SIGTERM)
    left = _wait_gone(waiting, timeout_s)
    for process in left:
        _signal(process, signal.SIGKILL)
    _wait_gone(left, timeout_s)
    return left


def kill(process: Process) -> None:
    """SIGKILL to the session; returns when the process is gone. One that is gone already is fine."""
    _signal(process, signal.SIGKILL)
    _wait_gone([process], _KILL_TIMEOUT_S)


def last_words(log: Path) -> str:
    """The last errors of a daemon's log, or its last lines when it names none, as one line."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace")[-65536:].splitlines()]
    except OSError:
        return "it wrote no log"
    said = [line for line in lines if line and not line.startswith("at ")]
    causes = [line for line in said if " ERROR " in line or " FATAL " in line or "Exception" in line]
    return " | ".join((causes or said)[-_LAST_LINES:]) or "it wrote no log"


def _wait_gone(processes: list[Process], timeout_s: float) -> list[Process]:
    deadline = time.monotonic() + timeout_s
    left = [process for process in processes if is_alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = [process for process in left if is_alive(process)]
    return left


def _signal(process: Process, number: signal.Signals) -> None:
    if not is_alive(process):
        return
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)  # It leads its session, so its children go too.
        else:
            os.kill(process.pid, number)


def _stat(pid: int) -> tuple[str, int]:
    """(state letter, start time in ticks) from proc(5); the name in parentheses may itself hold parentheses."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
